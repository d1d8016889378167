"""Where this machine has the user's files of prompts."""

from collections.abc import Mapping
from pathlib import Path

from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_contract.source_files import LinkError, locate
from dynalign_contract.sources import FILE_FORM, ClaimSource, PathSource, SourceError, parse_source


def supplied_path(uri: str, field: str, environment: Mapping[str, str]) -> Path:
    """Where this machine has the file that `uri` names, if it has; `field` names it in the run file, without its `uri`.

    Raises BadConfigError for an address of another kind, BadInputError where symbolic links lead out of the claim.
    """
    try:
        source = parse_source(uri)
    except SourceError as error:
        raise BadConfigError(f"{field}.uri {error}.") from error
    if not isinstance(source, ClaimSource | PathSource):
        raise BadConfigError(f"{field}.uri is {uri!r}; write {FILE_FORM}.")
    located = locate(source, environment)
    try:
        located.follow(located.path)
    except LinkError as error:
        raise BadInputError(f"{field}.uri: {error}") from error
    except OSError:  # who opens it says what is wrong
        return located.path
    return located.path
