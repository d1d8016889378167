"""Sealed checkpoints: a checkpoint counts once a manifest with the digests of all its files lies beside them."""

import logging
import shutil
from pathlib import Path
from typing import Final

from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import write_bytes
from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import Manifest, describe_file, read_manifest, verify_artifact, write_manifest
from dynalign_contract.result import ArtifactRef
from dynalign_contract.stages import Stage
from dynalign_trainer.grpo.job import TrainJob

log = logging.getLogger("dynalign.train")

KEPT_CHECKPOINTS: Final = 2
"""The last one, and one to fall back to."""
_OWNER_FILE: Final = "owner"
_PREFIX: Final = "checkpoint-"


def claim_folder(folder: Path, owner: str) -> None:
    """Make the folder belong to a job; what another job left there is removed.

    `owner` names all that a checkpoint depends on: the stage's configuration and the number of processes.
    """
    mark = folder / _OWNER_FILE
    if folder.exists() and (not mark.exists() or mark.read_text() != owner):
        shutil.rmtree(folder)
    write_bytes(mark, owner.encode())


def seal_checkpoint(folder: Path, job: TrainJob) -> None:
    """Record the digests of a checkpoint that all ranks have finished writing."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = tuple(describe_file(folder, name) for name in names if name != MANIFEST)
    write_manifest(
        folder, Manifest(stage=Stage.TRAIN, iteration=job.iteration, config_digest=job.config_digest, files=files)
    )


def checkpoint_folder(work: Path, step: int) -> Path:
    """Where the checkpoint after a number of steps lies."""
    return work / f"{_PREFIX}{step}"


def step_of(checkpoint: Path) -> int:
    """Steps that were taken when a checkpoint was saved; -1 for another folder's name."""
    digits = checkpoint.name.removeprefix(_PREFIX)
    return int(digits) if digits.isdecimal() else -1


def drop_old_checkpoints(work: Path) -> None:
    """Keep the last `KEPT_CHECKPOINTS`."""
    for checkpoint in _by_age(work)[KEPT_CHECKPOINTS:]:
        shutil.rmtree(checkpoint)


def find_checkpoint(folder: Path) -> Path | None:
    """The latest undamaged checkpoint, None where training must begin at the start; damaged ones are removed."""
    for checkpoint in _by_age(folder):
        try:
            _verify(checkpoint)
        except CorruptArtifactError as error:
            log.warning("checkpoint passed over: %s", error)
            shutil.rmtree(checkpoint)
        else:
            return checkpoint
    return None


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*"), key=step_of, reverse=True)


def _verify(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint)
    if manifest is None:
        raise CorruptArtifactError(f"{checkpoint} is half-written: it has no {MANIFEST}")
    verify_artifact(checkpoint.parent, ArtifactRef(path=checkpoint.name, digest=manifest.digest))
