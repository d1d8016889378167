"""rollout: the stages prompts, generate and judge in one process, one after the other, with one engine.

Each stage leaves the artifact, the manifest and the numbers that a Job of its own would have left: its configuration
has the same digest, so either kind of Job goes on where the other one stopped.
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dynalign_contract.config import RolloutParams, StageConfig
from dynalign_contract.console import print_traceback
from dynalign_contract.errors import StageError
from dynalign_contract.metrics import STAGE_METRICS, read_metrics
from dynalign_contract.result import (
    MAX_WARNINGS,
    ArtifactRef,
    Metric,
    Outcome,
    PartResult,
    StageResult,
)
from dynalign_contract.stages import Stage
from dynalign_trainer.runtime.failures import Attempt, explain_failure
from dynalign_trainer.runtime.session import Session
from dynalign_trainer.runtime.telemetry import Share

log = logging.getLogger("dynalign.stage")

_TIMES: Final = STAGE_METRICS[Stage.ROLLOUT]

Make = Callable[[StageConfig, Session], StageResult]
"""Makes the artifact of one stage, or finds it made, and returns the stage's result."""


def run_rollout(config: StageConfig, params: RolloutParams, root: Path, make: Make) -> StageResult:
    """Run the parts of a rollout in order and report each of them.

    Raises the StageError of the part that fails; what the parts before it have made stays, and the next attempt finds
    it made.
    """
    session = Session.begin(root, params)
    made: dict[Stage, ArtifactRef] = {}
    parts: dict[Stage, PartResult] = {}
    warnings: dict[str, None] = {}
    for index, part in enumerate(params.parts):
        own = config.of_part(part, made)
        session.share = Share(index, len(params.parts))
        log.info("%s, %d of %d of this rollout", own.stage, index + 1, len(params.parts))
        try:
            result = make(own, session)
        except (Exception, SystemExit) as error:
            if not isinstance(error, StageError):
                print_traceback(error)
            explained = explain_failure(error, Attempt(own, root))
            explained.place = ""  # it is remembered in the part's own folder
            raise explained from error
        if result.artifact is None:
            raise ValueError(f"{own.stage} has ended without an artifact")
        made[own.stage] = result.artifact
        parts[own.stage] = _describe(result, result.artifact)
        warnings |= dict.fromkeys(f"{own.stage}: {text}" for text in result.warnings)
    results = {stage: part.whole() for stage, part in parts.items()}
    is_skipped = all(part.is_skipped for part in parts.values())
    return StageResult(
        outcome=Outcome.SKIPPED if is_skipped else Outcome.SUCCEEDED,
        artifact=made[params.parts[-1].stage],
        metrics=_times_of(results),
        warnings=tuple(warnings)[:MAX_WARNINGS],
        parts=parts,
    )


def _describe(result: StageResult, artifact: ArtifactRef) -> PartResult:
    return PartResult(
        artifact=artifact,
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
