"""A model that is a folder already: `pvc://claim/path`, or a path."""

import logging
from collections.abc import Iterable
from pathlib import Path

from dynalign_contract.errors import BadInputError
from dynalign_contract.source_files import LinkError, LocatedSource
from dynalign_trainer.fetch.copying import Watch, copy_files
from dynalign_trainer.models.files import read_model_files
from dynalign_trainer.preflight.checks import Inspection

log = logging.getLogger("dynalign.fetch")


def fetch_folder(source: LocatedSource, target: Path, watch: Watch, inspection: Inspection) -> None:
    """Copy the model files of `source`; other weight formats and code are left behind.

    The inspection comes before the weights are copied. Raises BadInputError when it is no folder, holds nothing of a
    model, or has links that lead out of it, and what the inspection finds.
    """
    if not source.path.is_dir():
        raise BadInputError(
            f"spec.model.uri: {source.path} is not a folder. Name a Hugging Face model folder (config.json, "
            "safetensors weights, tokenizer); a pvc:// claim must be mounted into the fetch stage."
        )
    chosen = read_model_files(source.path)
    if chosen.left:
        log.info("left behind in %s, no part of the model: %s", source.path, ", ".join(chosen.left))
    files = _follow_links(source, chosen.all)
    weights = {name: files[name] for name in chosen.weights}
    copy_files({name: files[name] for name in chosen.metadata}, target, watch)
    inspection.check(target, weights)
    inspection.check_conversion(sum(path.stat().st_size for path in weights.values()), target)
    copy_files(weights, target, watch)


def _follow_links(source: LocatedSource, names: Iterable[str]) -> dict[str, Path]:
    """Name -> regular file. Raises BadInputError for a link that leads out, or to nothing."""
    try:
        source.follow(source.path)
        return {name: source.follow(source.path / name) for name in names}
    except LinkError as error:
        raise BadInputError(f"spec.model.uri: {error}") from error
    except FileNotFoundError as error:
        raise BadInputError(
            f"spec.model.uri: {error.filename} is a symbolic link to a file that does not exist. Copy the file there."
        ) from error
