"""A model that is a folder already: `pvc://claim/path`, or a path."""

import fnmatch
import os
import shutil
from pathlib import Path
from typing import Final

from dynalign_contract.errors import BadInputError

MODEL_FILES: Final = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt")
"""What a model needs. Other weight formats and code are left behind."""


def claim_folder(uri: str) -> Path:
    """Where `pvc://claim/path` is mounted: `/pvc/<claim>/path`, below `DYNALIGN_PVC_ROOT` when that is set."""
    return Path(os.environ.get("DYNALIGN_PVC_ROOT", "/pvc")) / uri.removeprefix("pvc://")


def fetch_folder(source: Path, target: Path) -> None:
    """Copy the model files of `source`. Raises BadInputError when it is no folder."""
    if not source.is_dir():
        raise BadInputError(
            f"spec.model.uri: {source} is not a folder. Name a Hugging Face model folder (config.json, safetensors "
            "weights, tokenizer); a pvc:// claim must be mounted into the fetch stage."
        )
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in MODEL_FILES):
            shutil.copyfile(path, target / path.name)
