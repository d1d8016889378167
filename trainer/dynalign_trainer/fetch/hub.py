"""`hf://org/name[@revision]`: a snapshot from the Hugging Face hub, pinned to a commit, safetensors only."""

import glob
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from dynalign_contract.errors import BadConfigError, BadInputError, StageError
from dynalign_contract.pod_paths import Variable
from dynalign_contract.sources import HubSource
from dynalign_trainer.fetch.copying import Watch
from dynalign_trainer.fetch.hub_progress import progress_bar
from dynalign_trainer.models.files import choose_files, choose_metadata
from dynalign_trainer.models.origin import Origin, read_origin, write_origin
from dynalign_trainer.preflight.checks import Inspection

_DOWNLOADS: Final = ".cache"
"""Where huggingface_hub keeps its half-finished files, below the target."""


class HubUnreachableError(StageError):
    """The hub did not answer, or broke off; retriable."""

    reason = "HubUnreachable"


@dataclass(frozen=True)
class Request:
    """What to bring, and where to."""

    uri: str
    repository: str
    revision: str
    token: str | Literal[False]
    """False: none, not even one that lies in the home folder."""
    target: Path


def fetch_hub(source: HubSource, target: Path, watch: Watch, inspection: Inspection) -> None:
    """Download the model into `target`, what tells whether it is usable first, then the weights.

    The token comes from `HF_TOKEN`, and from nowhere else. `source.json` records the commit that the revision meant
    when the download began; an interrupted download goes on with that commit, within the very file that was cut.

    Raises BadInputError when the repository is missing, closed to this token, without safetensors, or does not pass the
    inspection, BadConfigError when the address is not valid, and HubUnreachableError when the hub does not answer.
    """
    import httpx
    from huggingface_hub.errors import HFValidationError

    token: str | Literal[False] = os.environ.get(Variable.HUB_TOKEN) or False
    request = Request(source.uri, source.repository, source.revision or "main", token, target)
    try:
        commit = _pin(request)
        sizes = _list_files(request, commit)
        where = f"spec.model.uri: {source.uri}"
        _download(request, commit, choose_metadata(sizes, where), watch)
        inspection.check_metadata(target)
        weights = choose_files(sizes, target, where).weights
        inspection.check_conversion(sum(sizes[name] for name in weights), target)
        _download(request, commit, weights, watch)
        inspection.check_weights({name: target / name for name in weights})
    except HFValidationError as error:
        raise BadConfigError(
            f"spec.model.uri: {source.uri} names no repository of a hub: write hf://org/name."
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise _explain(error, request) from error
    shutil.rmtree(target / _DOWNLOADS, ignore_errors=True)


def _pin(request: Request) -> str:
    """The commit to download: the one that an earlier attempt began with, else the one that the revision means now."""
    from huggingface_hub import HfApi

    earlier = read_origin(request.target)
    if earlier is not None and earlier.commit is not None:
        return earlier.commit
    commit = str(HfApi(token=request.token).model_info(request.repository, revision=request.revision).sha)
    write_origin(request.target, Origin(uri=request.uri, commit=commit))
    return commit


def _list_files(request: Request, commit: str) -> dict[str, int]:
    """Name -> size in bytes of every file of the repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    tree = HfApi(token=request.token).list_repo_tree(request.repository, revision=commit, recursive=True)
    return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}


def _download(request: Request, commit: str, names: Sequence[str], watch: Watch) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(
        request.repository,
        revision=commit,
        local_dir=request.target,
        allow_patterns=[glob.escape(name) for name in names],
        token=request.token,
        tqdm_class=progress_bar(watch),
    )


def _explain(error: Exception, request: Request) -> Exception:
    """What a failed request means for the run; errors of the volume are handed back as they are."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = status_of(error)
    if isinstance(error, GatedRepoError) or status == 403:
        return BadInputError(
            f"spec.model.uri: the hub keeps {request.repository} closed to you. Accept its terms there, and name a "
            "Secret with a token that may read it in spec.model.tokenSecretRef (HF_TOKEN for a local run)."
        )
    if isinstance(error, RevisionNotFoundError):
        return BadInputError(
            f"spec.model.uri: {request.repository} has no revision {request.revision!r}. Name a branch, tag or "
            "commit that exists."
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return BadInputError(
            f"spec.model.uri: the hub shows no model {request.repository!r} to you. Check the spelling; a private "
            "model needs a token in spec.model.tokenSecretRef (HF_TOKEN for a local run)."
        )
    if status == 401:
        return BadInputError(
            f"spec.model.uri: the hub does not accept the token for {request.repository}. Put a valid one into the "
            "Secret of spec.model.tokenSecretRef (HF_TOKEN for a local run)."
        )
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return error
    return HubUnreachableError(
        f"{request.uri} could not be downloaded ({type(error).__name__}: {' '.join(str(error).split())[:300]}). "
        "The next attempt goes on where this one stopped; without a network, use a pvc:// or bundled:// model."
    )


def status_of(error: Any) -> int | None:
    """Status of the answer that an error is about, if any."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)
