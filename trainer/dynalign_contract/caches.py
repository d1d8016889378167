"""The folders beside the volume that stages write to: looked at before any work, so that a message can name them."""

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dynalign_contract.errors import BadConfigError
from dynalign_contract.pod_paths import Variable

CACHE_VARIABLE: Final = Variable.CACHE
_OTHERS: Final = (
    Variable.HUB_HOME,
    Variable.COMPILED_BY_VLLM,
    Variable.COMPILED_BY_INDUCTOR,
    Variable.COMPILED_BY_TRITON,
    Variable.TORCH_EXTENSIONS,
)
"""Variables that name caches of libraries; what is not set lies below HOME or in the temporary folder."""


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder for what is made once per machine: `DYNALIGN_CACHE`, or `~/.cache/dynalign`.

    Raises BadConfigError where neither is set.
    """
    if named := environment.get(CACHE_VARIABLE):
        return Path(named)
    try:
        home = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
    except RuntimeError as error:  # no HOME, and a uid without an entry in passwd
        raise BadConfigError(f"there is no home folder to keep a cache in ({error}). {_remedy('HOME')}") from error
    return home / ".cache" / "dynalign"


def check_caches(environment: Mapping[str, str] = os.environ) -> None:
    """Make sure that every cache can be written. Raises BadConfigError naming the variable that says where it is."""
    check_writable(cache_folder(environment), CACHE_VARIABLE if environment.get(CACHE_VARIABLE) else "HOME")
    for name in _OTHERS:
        if folder := environment.get(name):
            check_writable(Path(folder), name)


def check_writable(folder: Path, variable: str) -> None:
    """Make a folder if there is none and write into it. Raises BadConfigError naming `variable`, which led to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BadConfigError(
            f"the cache folder {folder}, which follows from {variable}, cannot be written "
            f"({error.strerror or type(error).__name__}). {_remedy(variable)}"
        ) from error


def _remedy(variable: str) -> str:
    if variable == "HOME":
        return f"Set {CACHE_VARIABLE} to a folder that can be written, or HOME to a home folder of your own."
    return f"Set {variable} to a folder that can be written."
