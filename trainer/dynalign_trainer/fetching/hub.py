"""`hf://org/name[@revision]`: a snapshot from the Hugging Face hub, pinned to a commit, safetensors only."""

import json
import shutil
from pathlib import Path

from dynalign_contract.errors import BadInputError, StageError
from dynalign_contract.files import write_bytes
from dynalign_trainer.fetching.folder import MODEL_FILES


class HubUnreachableError(StageError):
    """The hub did not answer; retriable."""

    reason = "HubUnreachable"


def fetch_hub(uri: str, target: Path) -> None:
    """Download the model into `target`; finished files of an interrupted download are kept.

    The token comes from `HF_TOKEN`. `source.json` records the commit that the revision meant, and an interrupted
    download goes on with that commit. Raises BadInputError when the repository is missing, closed to this token or
    without safetensors, and HubUnreachableError when the hub does not answer.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    repository, _, revision = uri.removeprefix("hf://").partition("@")
    record = target / "source.json"
    try:
        if record.exists():
            commit = json.loads(record.read_bytes())["commit"]
        else:
            info = HfApi().model_info(repository, revision=revision or None)
            commit = info.sha
            _check_formats(uri, [sibling.rfilename for sibling in info.siblings or ()])
            write_bytes(record, json.dumps({"uri": uri, "commit": commit}).encode())
        snapshot_download(
            repository,
            revision=commit,
            local_dir=target,
            allow_patterns=list(MODEL_FILES),
            ignore_patterns=["*/*"],
        )
    except GatedRepoError as error:
        raise BadInputError(
            f"spec.model.uri: {uri} is gated. Accept its terms on the hub and name a Secret with your token in "
            "spec.model.tokenSecretRef (HF_TOKEN for a local run)."
        ) from error
    except RevisionNotFoundError as error:
        raise BadInputError(
            f"spec.model.uri: {repository} has no revision {revision!r}. Name a branch, tag or commit that exists."
        ) from error
    except RepositoryNotFoundError as error:
        raise BadInputError(
            f"spec.model.uri: the hub shows no model {repository!r} to you. Check the spelling; a private model needs "
            "a token in spec.model.tokenSecretRef (HF_TOKEN for a local run)."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise HubUnreachableError(
            f"{uri} could not be downloaded ({error}). The next attempt goes on from the finished files; without a "
            "network, use a pvc:// or bundled:// model."
        ) from error
    shutil.rmtree(target / ".cache", ignore_errors=True)


def _check_formats(uri: str, names: list[str]) -> None:
    if not any(name.endswith(".safetensors") and "/" not in name for name in names):
        raise BadInputError(
            f"spec.model.uri: {uri} holds no safetensors weights. Other formats can run code when they are loaded and "
            "are refused: name a model or revision with safetensors."
        )
