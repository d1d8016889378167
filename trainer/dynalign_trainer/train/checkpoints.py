"""Sealed checkpoints: a checkpoint counts once a manifest with the digests of all its files lies beside them."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dynalign_contract import strangers
from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import remove
from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import ArtifactFile, Manifest, describe_file, read_listed, verify_files, write_manifest
from dynalign_contract.stages import Stage
from dynalign_trainer.train.deepspeed.state_names import add_model_files, optimizer_files
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.state_files import STATE_FILES, check_state_file

log = logging.getLogger("dynalign.train")

KEPT_CHECKPOINTS: Final = 2
"""The last one, and one to fall back to."""
_OWNER_FILE: Final = "owner"
_PREFIX: Final = "checkpoint-"
_PROGRAMS: Final = ("*.py", "training_args.bin")


def claim_folder(folder: Path, owner: str) -> None:
    """Make the folder belong to a job; what another job left there is removed.

    `owner` names all that a checkpoint depends on (`StageConfig.progress_digest`).
    """
    strangers.claim_folder(folder, _OWNER_FILE, owner)


def seal_checkpoint(folder: Path, job: TrainJob, described: Iterable[ArtifactFile] = ()) -> None:
    """Record the digests of a checkpoint that all ranks have finished writing.

    `described`: files whose digests the ranks that wrote them have computed; the others are read here.
    """
    known = {file.name: file for file in described}
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = tuple(known.get(name) or describe_file(folder, name) for name in names if name != MANIFEST)
    write_manifest(
        folder, Manifest(stage=Stage.TRAIN, iteration=job.iteration, config_digest=job.config_digest, files=files)
    )


def drop_programs(folder: Path) -> None:
    """Remove what can run and is never read: DeepSpeed's script for people, transformers' pickle of its arguments."""
    for name in _PROGRAMS:
        for path in folder.rglob(name):
            remove(path)


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
        remove(checkpoint)


def find_checkpoint(folder: Path) -> Path | None:
    """The latest undamaged checkpoint, None where training must begin at the start; damaged ones are removed."""
    for checkpoint in _by_age(folder):
        try:
            _verify(checkpoint)
        except CorruptArtifactError as error:
            log.warning("checkpoint passed over: %s", error)
            remove(checkpoint)
        else:
            return checkpoint
    return None


def fit_checkpoint(checkpoint: Path, job: TrainJob, processes: int) -> None:
    """Have a checkpoint of another number of processes hold what each of these looks for.

    What they hold of it is cut for them when they read it (`deepspeed.state`).
    """
    saved = len(optimizer_files(checkpoint))
    if saved in (0, processes):
        return
    log.info("the checkpoint was written by %d processes, its state is divided among %d", saved, processes)
    if add_model_files(checkpoint, processes):
        seal_checkpoint(checkpoint, job, read_listed(checkpoint).files)


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*"), key=step_of, reverse=True)


def _verify(checkpoint: Path) -> None:
    """Raise CorruptArtifactError unless all is as it was sealed, the states in the one format that is ever opened."""
    verify_files(checkpoint, read_listed(checkpoint))
    for path in sorted(checkpoint.rglob(STATE_FILES)):
        check_state_file(path)
