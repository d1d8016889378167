"""A model that is a folder already: `pvc://claim/path`, or a path."""

import logging
import os
from pathlib import Path

from dynalign_contract.errors import BadInputError
from dynalign_trainer.fetching.copying import Watch, copy_files
from dynalign_trainer.model_files import read_model_files
from dynalign_trainer.preflight.checks import Inspection
from dynalign_trainer.preflight.quantised import check_quantised_names

log = logging.getLogger("dynalign.fetch")


def claim_folder(uri: str) -> Path:
    """Where `pvc://claim/path` is mounted: `/pvc/<claim>/path`, below `DYNALIGN_PVC_ROOT` when that is set."""
    return Path(os.environ.get("DYNALIGN_PVC_ROOT") or "/pvc") / uri.removeprefix("pvc://")


def fetch_folder(source: Path, target: Path, watch: Watch, inspection: Inspection) -> None:
    """Copy the model files of `source`; other weight formats and code are left behind.

    The inspection comes before the weights are copied. Raises BadInputError when it is no folder, or holds nothing of a
    model, and what the inspection finds.
    """
    if not source.is_dir():
        raise BadInputError(
            f"spec.model.uri: {source} is not a folder. Name a Hugging Face model folder (config.json, safetensors "
            "weights, tokenizer); a pvc:// claim must be mounted into the fetch stage."
        )
    files = read_model_files(source)
    if files.left:
        log.info("left behind in %s, no part of the model: %s", source, ", ".join(files.left))
    check_quantised_names((*files.all, *files.left), str(source), str(source))
    weights = {name: source / name for name in files.weights}
    copy_files({name: source / name for name in files.metadata}, target, watch)
    inspection.check(target, weights)
    copy_files(weights, target, watch)
