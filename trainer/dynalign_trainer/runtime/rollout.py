"""rollout: the stages prompts, generate and judge in one process, one after the other, with one engine.

The evaluation of the iteration before comes first where it is due; if the policy got worse and the run does not go on
with it, nothing follows. Each stage leaves the artifact, the manifest and the numbers that a Job of its own would have
left: its configuration has the same digest, so either kind of Job goes on where the other one stopped. Shards work side
by side: shard 0 writes the prompts, and a stage that reads what all shards have written begins when their manifests are
there. A shard that is lost comes back alone, and the others wait for it.
"""

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from dynalign_trainer.runtime.session import Session
from dynalign_trainer.runtime.telemetry import Share

log = logging.getLogger("dynalign.stage")

_TIMES: Final = STAGE_METRICS[Stage.ROLLOUT]
_LOOK_EVERY_SECONDS: Final = 0.5

Make = Callable[[StageConfig, Session], StageResult]
"""Makes the artifact of one stage, or of this pod's shard of it, or finds it made, and returns the stage's result."""


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


def run_rollout(rollout: Rollout, make: Make) -> StageResult:
    """Run the parts of a rollout in order and report each of them.

    Raises the StageError of the part that fails; what the parts before it have made stays, and the next attempt finds
    it made.
    """
    session = Session.begin(rollout.root, rollout.params)
    parts: dict[Stage, PartResult] = {}
    made: dict[Stage, ArtifactRef] = {}
    warnings: dict[str, None] = {}
    for place, part in enumerate(rollout.params.parts):
        config = rollout.config.of_part(part, made)
        session.share = Share(place, len(rollout.params.parts))
        if rollout.index < config.shards:
            log.info("%s, %d of %d of this rollout", part.stage, place + 1, len(rollout.params.parts))
            with _explained(config, rollout):
                result = make(config, session)
            parts[part.stage] = _describe(result)
            warnings |= dict.fromkeys(f"{part.stage}: {text}" for text in result.warnings)
        if _is_last(part, config, rollout, session):
            break
        if part.stage in ROLLOUT_STAGES:
            made[part.stage] = _await_artifact(config, rollout, session)
    results = {stage: part.whole() for stage, part in parts.items()}
    is_skipped = all(part.is_skipped for part in parts.values())
    return StageResult(
        outcome=Outcome.SKIPPED if is_skipped else Outcome.SUCCEEDED,
        artifact=list(parts.values())[-1].artifact,
        metrics=_times_of(results),
        warnings=tuple(warnings)[:MAX_WARNINGS],
        parts=parts,
    )


def _is_last(part: RolloutPart, config: StageConfig, rollout: Rollout, session: Session) -> bool:
    """Whether nothing follows a part: it is the last one, or an evaluation that ends the rollout."""
    if part is rollout.params.parts[-1]:
        return True
    if part.stage is not Stage.EVALUATE or not rollout.params.ends_on_regression:
        return False
    evaluation = rollout.root / _await_artifact(config, rollout, session).path
    manifest = read_manifest(evaluation)
    if manifest is None or read_metrics(Stage.EVALUATE, manifest.metrics).get(EvaluateMetrics.regressed) != 1:
        return False
    log.info("%s has found that the policy got worse: this rollout ends here", evaluation)
    return True


@contextmanager
def _explained(config: StageConfig, rollout: Rollout) -> Iterator[None]:
    """Turn what a part raises into an error that names the part, and that its own folder remembers."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if not isinstance(error, StageError):
            print_traceback(error)
        explained = explain_failure(error, Attempt(config, rollout.root, rollout.index, in_rollout=True))
        explained.place = ""
        raise explained from error


def _await_artifact(config: StageConfig, rollout: Rollout, session: Session) -> ArtifactRef:
    """The artifact of a stage, all shards together, once the manifest of each is there, or the one of all of them.

    Raises TerminatedError on SIGTERM, CorruptArtifactError where a manifest cannot be read.
    """
    paths = [config.folder] if config.is_joined else [config.shard(index) for index in range(config.shards)]
    missing = [path for path in paths if _find(rollout.root, path, config) is None]
    if missing:
        log.info("%s: waiting for %s", config.stage, ", ".join(missing))
        telemetry = session.telemetry(config.stage)
        telemetry.progress(1, 1)
        server = telemetry.serve(rollout.port)
        try:
            while any(_find(rollout.root, path, config) is None for path in missing):
                if rollout.stopping.wait(_LOOK_EVERY_SECONDS):
                    raise TerminatedError("stopped by SIGTERM while waiting for other shards; finished parts are kept")
        finally:
            server.close()
    if rollout.stopping.is_set():
        raise TerminatedError("stopped by SIGTERM between two stages; the next attempt goes on from what is finished")
    found = [_find(rollout.root, path, config) for path in paths]
    artifacts = [artifact for artifact in found if artifact is not None]
    return artifacts[0] if len(paths) == 1 else combine_artifacts(config.folder, artifacts)


def _find(root: Path, path: str, config: StageConfig) -> ArtifactRef | None:
    """The artifact in a folder, if it was made with this configuration."""
    manifest = read_manifest(root / path)
    return None if manifest is None or manifest.config_digest != config.digest else reference_to(path, manifest)


def _describe(result: StageResult) -> PartResult:
    if result.artifact is None:
        raise ValueError("a stage has ended without an artifact")
    return PartResult(
        artifact=result.artifact,
        metrics={metric.name: metric.value for metric in result.metrics},
        seconds=result.seconds,
        is_skipped=result.outcome is Outcome.SKIPPED,
    )


def _times_of(results: dict[Stage, StageResult]) -> tuple[Metric, ...]:
    """Useful time, kept time and start-up of the stages that this process has run, together.

    Those of a stage that was done already are its own attempt's: they are no time of this process.
    """
    totals: dict[str, list[float]] = {}
    for stage, result in results.items():
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
