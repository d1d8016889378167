"""Damage to the artifacts and checkpoints of a run.

Promises: every damage is found before anything is read, whatever was damaged, changed, removed or added; what is said
names the place and what to do; nothing else is raised; a damaged checkpoint gives way to the one before it; and what is
whole is taken.
"""

import logging
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.fuzz.damages import IN_FOLDERS, damage_shards, forge
from benchmarks.fuzz.finished_run import Finished, write_finished_run
from benchmarks.fuzz.trials import Fuzzer, Trial
from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.manifest import artifact_folders, verify_artifact
from dynalign_contract.result import ArtifactRef
from dynalign_trainer.train.checkpoints import find_checkpoint

_CHECKPOINTS: Final = 0.15
"""Share of the trials that are about checkpoints."""
_SHARDS: Final = 0.2
"""Share of the trials of a sharded artifact that are about its shards."""


@contextmanager
def _open() -> Iterator[Trial]:
    logger = logging.getLogger("dynalign.train")  # tells of each checkpoint that is passed over
    was_disabled, logger.disabled = logger.disabled, True
    with tempfile.TemporaryDirectory() as root:
        finished = write_finished_run(Path(root) / "run")

        def trial(rng: random.Random) -> str:
            with tempfile.TemporaryDirectory(dir=root) as place:
                is_checkpoint = rng.random() < _CHECKPOINTS
                return (try_checkpoint if is_checkpoint else try_artifact)(finished, Path(place) / "run", rng)

        yield trial
    logger.disabled = was_disabled


ARTIFACTS: Final = Fuzzer("artifacts", _open)


def try_artifact(finished: Finished, root: Path, rng: random.Random) -> str:
    """Damage an artifact and verify it. Raises AssertionError when the damage is not found, or not said."""
    artifact = rng.choice(finished.artifacts)
    shutil.copytree(finished.root / artifact.path, root / artifact.path)
    verify_artifact(root, artifact)
    damaged = _damage(root, artifact, rng)
    if damaged is None:
        return "whole"
    what, named = damaged
    try:
        verify_artifact(root, artifact)
    except CorruptArtifactError as error:
        _check_message(str(error), root, named)
        return f"{what}: found"
    raise AssertionError(f"{what} of {named} in {artifact.path} was not found")


def try_checkpoint(finished: Finished, root: Path, rng: random.Random) -> str:
    """Damage the latest checkpoint and look for one. Raises AssertionError when it is found all the same."""
    work = root / finished.checkpoints
    shutil.copytree(finished.root / finished.checkpoints, work)
    latest = find_checkpoint(work)
    if latest is None:
        raise AssertionError("a whole checkpoint was passed over")
    damage = rng.choice(IN_FOLDERS)
    if damage(latest, rng) is None:
        return "whole"
    found = find_checkpoint(work)
    if found is None or found == latest or latest.exists():
        raise AssertionError(f"{damage.__name__} of a checkpoint was not found, or cost the one before it: {found}")
    return "checkpoint: found"


def _damage(root: Path, artifact: ArtifactRef, rng: random.Random) -> tuple[str, str] | None:
    if artifact.shards > 1 and rng.random() < _SHARDS:
        return damage_shards(root / artifact.path, rng)
    damage = rng.choice((*IN_FOLDERS, forge))
    named = damage(rng.choice(artifact_folders(root, artifact)), rng)
    return None if named is None else (damage.__name__, named)


def _check_message(message: str, root: Path, named: str) -> None:
    if str(root) not in message or named not in message:
        raise AssertionError(f"the refusal names neither {named} nor its folder: {message}")
    if "remove" not in message.lower():
        raise AssertionError(f"the refusal does not say what to do: {message}")
