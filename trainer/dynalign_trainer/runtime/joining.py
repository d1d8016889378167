"""The shares of a stage whose shards leave one artifact: a pod that finds all of them there joins them.

No pod waits for another one: that may not get a place before this one has ended. A Job of several shards succeeds when
each of them has, so the pod that ends last finds all shares. A pod first marks its own share as finished and then looks
for the marks of the others, all in one folder: of pods that end at the same time at least one sees every mark, also
where clients of a network file system remember what they have seen. A lock decides between those that do. It is a
folder that comes into being with the name of its shard in it, by renaming: a pod that dies at any moment leaves no lock
without an owner, and its successor takes up the lock again.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dynalign_contract.combining import combine_metrics
from dynalign_contract.config import StageConfig
from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import remove, write_bytes
from dynalign_contract.manifest import read_listed, read_manifest, reference_to, verify_artifact
from dynalign_contract.metrics import STAGE_METRICS, find_definition, read_metrics
from dynalign_contract.result import Metric, Outcome, StageResult
from dynalign_contract.stages import Stage
from dynalign_trainer.runtime.context import StageOutput

log = logging.getLogger("dynalign.stage")

_LOCK: Final = "joining"
_OWNER: Final = "shard"
"""In the lock: the shard that holds it."""

Make = Callable[[str, tuple[Path, ...]], StageResult]
"""Makes the artifact at a path relative to the run's folder, from these folders of shares; none for a share itself."""


def make_joined(config: StageConfig, root: Path, index: int, make: Make) -> StageResult:
    """Make this shard's share, and join all shares into the artifact if this pod is to do it; the result names either.

    Raises CorruptArtifactError for a share whose files are not those of its manifest.
    """
    shares = Shares(root, config, index)
    if not _is_done(config, root, config.folder):
        try:
            own = make(config.shard(index), ())
            joins = not _is_done(config, root, config.folder) and shares.take_turn()
        except (CorruptArtifactError, FileNotFoundError):  # another pod may have joined and removed them meanwhile
            if not _is_done(config, root, config.folder):
                raise
        else:
            if joins:
                return _join(shares, own, make)
            log.info("%s: another pod joins the shares, as soon as all %d are there", config.stage, config.shards)
            return own
    shares.remove()
    return make(config.folder, ())


def _join(shares: "Shares", own: StageResult, make: Make) -> StageResult:
    config = shares.config
    joined = make(config.folder, shares.verify())
    shares.remove()
    return joined.model_copy(update={"metrics": with_own_times(config.stage, joined, own)})


@dataclass(frozen=True)
class Shares:
    """The shares of one stage on the volume, as one of its shards sees them."""

    root: Path
    config: StageConfig
    index: int
    """The shard."""

    @property
    def folder(self) -> Path:
        """Where marks, lock and shares lie."""
        return self.root / self.config.shares

    def take_turn(self) -> bool:
        """Mark this shard's share as finished, and take the lock if all are; False where another pod joins them."""
        self._let_go()
        write_bytes(self._mark(self.index), b"")
        return self._are_all_there() and self._take_lock()

    def verify(self) -> tuple[Path, ...]:
        """Folders of all shares, by index, every byte checked. Raises CorruptArtifactError."""
        paths = [self.config.shard(index) for index in range(self.config.shards)]
        return tuple(verify_artifact(self.root, reference_to(p, read_listed(self.root / p)))[0] for p in paths)

    def remove(self) -> None:
        """Remove all shares, once they are joined; what cannot be removed is left: nobody reads it any more.

        They vanish at once for a pod that looks for them just now.
        """
        gone = self.folder.with_name(f".joined-{self.index}")
        shutil.rmtree(gone, ignore_errors=True)
        try:
            self.folder.rename(gone)
        except OSError as error:
            log.debug("%s: %s", self.folder, error)
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _mark(self, index: int) -> Path:
        return self.folder / f"finished-{index:03d}"

    def _are_all_there(self) -> bool:
        """Whether every share is marked, and there: somebody may have removed one to have it made again."""
        indexes = range(self.config.shards)
        try:
            names = {path.name for path in self.folder.iterdir()}
        except FileNotFoundError:  # they are joined, and removed
            return False
        if not all(self._mark(index).name in names for index in indexes):
            return False
        return all(_is_done(self.config, self.root, self.config.shard(index)) for index in indexes)

    def _take_lock(self) -> bool:
        """Whether this shard holds the lock now."""
        own = self._own_lock()
        try:
            remove(own)
            own.mkdir()
            (own / _OWNER).write_text(str(self.index))
            own.rename(self.folder / _LOCK)
        except FileNotFoundError:  # they are joined, and removed
            return False
        except OSError:
            if not (self.folder / _LOCK).is_dir():
                raise
            return False
        return True

    def _let_go(self) -> None:
        """Give up a lock that an earlier pod of this shard has left: shares may have gone since."""
        lock, own = self.folder / _LOCK, self._own_lock()
        try:
            if (lock / _OWNER).read_text() != str(self.index):
                return
        except (FileNotFoundError, NotADirectoryError):
            return
        remove(own)
        lock.rename(own)

    def _own_lock(self) -> Path:
        """The lock before it is taken and after it is given up."""
        return self.folder / f".{_LOCK}-{self.index}"


def with_shares(
    stage: Stage, output: StageOutput[Any], seconds: float, folders: Sequence[Path]
) -> tuple[StageOutput[Any], float]:
    """The output of joining, and its time, with what the shares' manifests say together.

    Metrics that the shares have measured, among them times, are combined by their definitions; the others are those of
    the output. The time is that of the slowest share and of joining.
    """
    manifests = [read_listed(folder) for folder in folders]
    results = [StageResult(outcome=Outcome.SUCCEEDED, metrics=manifest.metrics) for manifest in manifests]
    combined = ((find_definition(stage, metric.name), metric.value) for metric in combine_metrics(stage, results))
    measured = {definition: value for definition, value in combined if definition is not None}
    producers = {name: version for manifest in manifests for name, version in manifest.producers.items()}
    output = replace(output, metrics={**output.metrics, **measured}, producers={**producers, **output.producers})
    return output, seconds + max(manifest.seconds for manifest in manifests)


def with_own_times(stage: Stage, joined: StageResult, own: StageResult) -> tuple[Metric, ...]:
    """The metrics of the joined artifact, with the times of this pod alone: each pod reports its own.

    Useful time of a share that an earlier pod has made is time that this one has kept.
    """
    times, values = STAGE_METRICS[stage], read_metrics(stage, own.metrics)
    found = {metric: values.get(metric) for metric in times.times()}
    if own.outcome is Outcome.SKIPPED:
        kept = sum(values.get(metric, 0.0) for metric in (times.useful_seconds, times.preserved_seconds))
        found = {times.useful_seconds: 0.0, times.preserved_seconds: kept}
    names = {metric.name for metric in times.times()}
    others = (metric for metric in joined.metrics if metric.name not in names)
    own_times = (Metric(name=metric.name, value=value) for metric, value in found.items() if value is not None)
    return (*others, *own_times)


def _is_done(config: StageConfig, root: Path, path: str) -> bool:
    """Whether a folder holds what was made with this configuration."""
    manifest = read_manifest(root / path)
    return manifest is not None and manifest.config_digest == config.digest
