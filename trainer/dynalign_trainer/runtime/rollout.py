"""rollout: the stages prompts, generate and judge in one process, one after the other, with one engine.

The evaluation of the iteration before comes first where it is due; if the policy got worse and the run does not go on
with it, nothing follows. Each stage leaves the artifact, the manifest and the numbers that a Job of its own would have
left: its configuration has the same digest, so either kind of Job goes on where the other one stopped. Shards work side
by side: shard 0 writes the prompts, with the help of those that wait for them (`helping`), and a stage that reads what
all shards have written begins when their manifests are there. A shard that is lost comes back alone. The others wait
for it, or one of them makes it in its place (`shard_leases`).
"""

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from dynalign_contract.config import RolloutParams, RolloutPart, StageConfig
from dynalign_contract.console import print_traceback
from dynalign_contract.errors import StageError, TerminatedError
from dynalign_contract.manifest import read_manifest, reference_to
from dynalign_contract.metrics import STAGE_METRICS, EvaluateMetrics, read_metrics
from dynalign_contract.result import (
    MAX_WARNINGS,
    ArtifactRef,
    Metric,
    Outcome,
    PartResult,
    StageResult,
    combine_artifacts,
)
from dynalign_contract.stages import ROLLOUT_STAGES, Stage
from dynalign_trainer.runtime.failures import Attempt, explain_failure
from dynalign_trainer.runtime.helping import HELP_EVERY_SECONDS, Helper, Helping
from dynalign_trainer.runtime.session import Session
from dynalign_trainer.runtime.shard_leases import ShardLeases
from dynalign_trainer.runtime.telemetry import Share

log = logging.getLogger("dynalign.stage")

_TIMES: Final = STAGE_METRICS[Stage.ROLLOUT]
_LOOK_EVERY_SECONDS: Final = 0.5

Make = Callable[[StageConfig, Session, int], StageResult]
"""Makes the artifact of one stage, or the shard of it with this index, or finds it made; returns its result."""

Help = Callable[[StageConfig, Session], AbstractContextManager[Helping | None]]
"""Helps with a stage that another pod does; gives None where there is nothing to help with."""


@dataclass(frozen=True)
class Rollout:
    """One attempt of a rollout, or of one of its shards."""

    config: StageConfig
    params: RolloutParams
    root: Path
    """The run's folder on the volume."""
    index: int
    """The shard."""
    port: int
    """Port of /metrics while this shard waits for others."""
    stopping: threading.Event


def run_rollout(rollout: Rollout, make: Make, help_with: Help) -> StageResult:
    """Run the parts of a rollout in order and report each of them.

    Raises the StageError of the part that fails; what the parts before it have made stays, and the next attempt finds
    it made.
    """
    session = Session.begin(rollout.root, rollout.params, pod=rollout.index, pods=rollout.config.shards)
    run = _Running(rollout, make, help_with, session)
    parts: dict[Stage, PartResult] = {}
    made: dict[Stage, ArtifactRef] = {}
    warnings: dict[str, None] = {}
    for place, part in enumerate(rollout.params.parts):
        config = rollout.config.of_part(part, made)
        run.session.share = Share(place, len(rollout.params.parts))
        if rollout.index < config.shards:
            log.info("%s, %d of %d of this rollout", part.stage, place + 1, len(rollout.params.parts))
            result = run.make_own(config)
            parts[part.stage] = _describe(result)
            warnings |= dict.fromkeys(f"{part.stage}: {text}" for text in result.warnings)
        if _is_last(part, config, run):
            break
        if part.stage in ROLLOUT_STAGES:
            made[part.stage] = run.await_artifact(config)
    run.leases.close()
    is_skipped = all(part.is_skipped for part in parts.values()) and not run.beside
    results = [(stage, part.whole()) for stage, part in parts.items()]
    return StageResult(
        outcome=Outcome.SKIPPED if is_skipped else Outcome.SUCCEEDED,
        artifact=list(parts.values())[-1].artifact,
        metrics=_times_of([*results, *run.beside]),
        warnings=tuple(warnings)[:MAX_WARNINGS],
        parts=parts,
    )


@dataclass
class _Running:
    """A rollout under way in this pod."""

    rollout: Rollout
    make: Make
    help_with: Help
    session: Session
    leases: ShardLeases = field(init=False)
    beside: list[tuple[Stage, StageResult]] = field(default_factory=list)
    """Shards that this pod has made in the place of others, and its help with what others have made."""
    _joined: set[int] = field(default_factory=set)
    """Shards whose pods this one has stood in for to join the evaluation, the only part that is joined."""

    def __post_init__(self) -> None:
        root, config = self.rollout.root, self.rollout.config
        self.leases = ShardLeases(root / config.leases, self.rollout.index)

    def make_own(self, config: StageConfig) -> StageResult:
        """Make this pod's shard of a part; where another pod stands in for this one, wait for it."""
        index = self.rollout.index
        if self.rollout.config.shards == 1:
            return self._make(config, index)
        if not self.leases.take(config.stage, index):
            log.info("%s: another pod makes this shard, for this one was not there", config.stage)
            with self._waiting(config) as look_again:
                while index in self._missing(config) and not self.leases.take_expired(config.stage, index):
                    look_again()
        with self.leases.renewed():
            return self._make(config, index)

    def await_artifact(self, config: StageConfig) -> ArtifactRef:
        """The artifact of a stage, all shards together, once the manifest of each is there, or the one of all of them.

        Shards that no pod is at are made here. Raises TerminatedError on SIGTERM, CorruptArtifactError where a manifest
        cannot be read.
        """
        if missing := self._missing(config):
            log.info("%s: waiting for %s", config.stage, ", ".join(map(config.shard, missing)))
        while not self._is_there(config):
            with self._waiting(config) as look_again:
                while (lost := self._find_lost(config)) is None and not self._is_there(config):
                    look_again()
            if lost is not None:
                log.warning("%s: no pod has been at %s; it is made here", config.stage, config.shard(lost))
                with self.leases.renewed():
                    self.beside.append((config.stage, self._make(config, lost)))
        if self.rollout.stopping.is_set():
            raise TerminatedError(
                "stopped by SIGTERM between two stages; the next attempt goes on from what is finished"
            )
        found = [self._find(path, config) for path in _paths(config)]
        artifacts = [artifact for artifact in found if artifact is not None]
        return artifacts[0] if len(found) == 1 else combine_artifacts(config.folder, artifacts)

    def _make(self, config: StageConfig, index: int) -> StageResult:
        with _explained(config, self.rollout, index):
            return self.make(config, self.session, index)

    def _find_lost(self, config: StageConfig) -> int | None:
        """A missing shard that this pod may make, for no other has been at it."""
        if self.rollout.config.shards == 1:
            return None
        missing = self._missing(config)
        is_unjoined = not missing and config.is_joined and not self._is_there(config)
        if is_unjoined:  # the pod that was joining the shares is lost: it may be any of them
            missing = [index for index in range(config.shards) if index not in self._joined]
        lost = next((index for index in missing if self.leases.take_expired(config.stage, index)), None)
        if is_unjoined and lost is not None:
            self._joined.add(lost)
        return lost

    def _missing(self, config: StageConfig) -> list[int]:
        """Shards without a manifest; none once they are joined."""
        if config.is_joined and self._is_there(config):
            return []
        return [index for index in range(config.shards) if self._find(config.shard(index), config) is None]

    def _is_there(self, config: StageConfig) -> bool:
        return all(self._find(path, config) is not None for path in _paths(config))

    def _find(self, path: str, config: StageConfig) -> ArtifactRef | None:
        """The artifact in a folder, if it was made with this configuration."""
        manifest = read_manifest(self.rollout.root / path)
        return None if manifest is None or manifest.config_digest != config.digest else reference_to(path, manifest)

    @contextmanager
    def _waiting(self, config: StageConfig) -> Iterator[Callable[[], None]]:
        """Serve /metrics meanwhile; call what this gives between two looks.

        It helps with the stage where a pod can, and raises TerminatedError on SIGTERM.
        """
        explained = _explained(config, self.rollout, self.rollout.index, is_helping=True)
        with explained, self.help_with(config, self.session) as helping:
            if helping is not None:
                yield partial(self._help, helping.helper)
                self.beside.append((config.stage, helping.result))
                return
        telemetry = self.session.telemetry(config.stage)
        telemetry.progress(1, 1)
        server = telemetry.serve(self.rollout.port)
        try:
            yield partial(self._pause, _LOOK_EVERY_SECONDS)
        finally:
            server.close()

    def _help(self, helper: Helper) -> None:
        if not helper.help():
            self._pause(HELP_EVERY_SECONDS)

    def _pause(self, seconds: float) -> None:
        if self.rollout.stopping.wait(seconds):
            raise TerminatedError("stopped by SIGTERM while waiting for other shards; finished parts are kept")


def _paths(config: StageConfig) -> list[str]:
    """Folders whose manifests make a stage whole."""
    return [config.folder] if config.is_joined else [config.shard(index) for index in range(config.shards)]


def _is_last(part: RolloutPart, config: StageConfig, run: _Running) -> bool:
    """Whether nothing follows a part: it is the last one, or an evaluation that ends the rollout."""
    params = run.rollout.params
    if part is params.parts[-1]:
        return True
    if part.stage is not Stage.EVALUATE or not params.ends_on_regression:
        return False
    evaluation = run.rollout.root / run.await_artifact(config).path
    manifest = read_manifest(evaluation)
    if manifest is None or read_metrics(Stage.EVALUATE, manifest.metrics).get(EvaluateMetrics.regressed) != 1:
        return False
    log.info("%s has found that the policy got worse: this rollout ends here", evaluation)
    return True


@contextmanager
def _explained(config: StageConfig, rollout: Rollout, index: int, *, is_helping: bool = False) -> Iterator[None]:
    """Turn what a part raises into an error that names the part, and that its own folder remembers."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if not isinstance(error, StageError):
            print_traceback(error)
        explained = explain_failure(error, Attempt(config, rollout.root, index, in_rollout=True, is_helping=is_helping))
        explained.place = ""
        raise explained from error


def _describe(result: StageResult) -> PartResult:
    if result.artifact is None:
        raise ValueError("a stage has ended without an artifact")
    return PartResult(
        artifact=result.artifact,
        metrics={metric.name: metric.value for metric in result.metrics},
        seconds=result.seconds,
        is_skipped=result.outcome is Outcome.SKIPPED,
    )


def _times_of(results: Iterable[tuple[Stage, StageResult]]) -> tuple[Metric, ...]:
    """Useful time, kept time and start-up of the stages that this process has run, together.

    Those of a stage that was done already are its own attempt's: they are no time of this process.
    """
    totals: dict[str, list[float]] = {}
    for stage, result in results:
        if result.outcome is Outcome.SKIPPED:
            continue
        values, metrics = read_metrics(stage, result.metrics), STAGE_METRICS[stage]
        pairs = (
            (_TIMES.start_seconds, metrics.start_seconds),
            (_TIMES.useful_seconds, metrics.useful_seconds),
            (_TIMES.preserved_seconds, metrics.preserved_seconds),
        )
        for whole, own in pairs:
            totals.setdefault(whole.name, []).append(values.get(own, 0.0))
    return tuple(Metric(name=name, value=math.fsum(values)) for name, values in totals.items())
