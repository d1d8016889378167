"""A model that is a folder already: `pvc://claim/path`, or a path."""

import fnmatch
import os
from pathlib import Path
from typing import Final

from dynalign_contract.errors import BadInputError
from dynalign_trainer.fetching.copying import Watch, copy_files

METADATA_FILES: Final = ("*.json", "*.jinja", "*.model", "*.txt")
"""Configuration, tokenizer, chat template, index of the weights."""
WEIGHT_FILES: Final = ("*.safetensors",)
SECOND_COPIES: Final = ("consolidated*",)
"""The same weights once more, in their author's own layout, which nothing here reads."""


def claim_folder(uri: str) -> Path:
    """Where `pvc://claim/path` is mounted: `/pvc/<claim>/path`, below `DYNALIGN_PVC_ROOT` when that is set."""
    return Path(os.environ.get("DYNALIGN_PVC_ROOT") or "/pvc") / uri.removeprefix("pvc://")


def fetch_folder(source: Path, target: Path, watch: Watch) -> None:
    """Copy the model files of `source`; other weight formats and code are left behind.

    Raises BadInputError when it is no folder, or holds nothing of a model.
    """
    if not source.is_dir():
        raise BadInputError(
            f"spec.model.uri: {source} is not a folder. Name a Hugging Face model folder (config.json, safetensors "
            "weights, tokenizer); a pvc:// claim must be mounted into the fetch stage."
        )
    copy_files([path for path in sorted(source.iterdir()) if path.is_file() and _wanted(path.name)], target, watch)


def _wanted(name: str) -> bool:
    def matches(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    return matches((*METADATA_FILES, *WEIGHT_FILES)) and not matches(SECOND_COPIES) and name != "manifest.json"
