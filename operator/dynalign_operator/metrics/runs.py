"""Metrics of runs, computed from their status when they are asked for, so that a deleted run leaves none."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric

from dynalign_contract.metrics import GenerateMetrics, MetricDef, read_metrics
from dynalign_contract.settings import Refresh
from dynalign_contract.stages import Stage, own_stages_of_job
from dynalign_operator.api.status import AlignmentRunStatus, Phase, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.stage_metrics import LiveMetrics
from dynalign_operator.metrics.definition import MetricDefinition
from dynalign_operator.metrics.exports import EXPORTS, gauge_of, labels_of, run_gauge
from dynalign_operator.planning.iteration_numbers import numbers_of
from dynalign_operator.planning.sequence import stages_of_iteration

_PHASE: Final = run_gauge("phase", "1 for the run's phase, 0 for the others.", "phase")
_CONDITION: Final = run_gauge("condition", "1 while the condition is True, 0 otherwise.", "condition", "reason")
_PROGRESS: Final = run_gauge("progress_ratio", "Share of the run that is done, 0 to 1.")
_ITERATION: Final = run_gauge("iteration", "Current iteration, from 0.")
_ITERATIONS: Final = run_gauge("iterations", "Iterations that are wanted.")
_STAGE: Final = run_gauge("stage", "1 for the current stage; none once the run has ended.", "stage")
_FAILURES: Final = run_gauge(
    "stage_failures", "Failed attempts of the current stage, those that count against policy.retries.", "stage"
)
_SECONDS: Final = run_gauge(
    "stage_seconds",
    "Duration of the latest finished stage of this name, pauses and repeated attempts included.",
    "stage",
)

_GOODPUT: Final = run_gauge("goodput_ratio", "Useful share of the reserved device time whose use is known, 0 to 1.")
_DEVICE_SECONDS: Final = run_gauge(
    "device_seconds",
    "Time of the devices (label unit) that the iterations' stages have used, by kind: reserved, and the useful, "
    "starting, waiting, wasted and unknown parts of it.",
    "unit",
    "kind",
)

RUN_METRICS: Final = (
    *(_PHASE, _CONDITION, _PROGRESS, _ITERATION, _ITERATIONS, _STAGE, _FAILURES, _SECONDS, _GOODPUT, _DEVICE_SECONDS),
    *EXPORTS.values(),
)


@dataclass(frozen=True)
class KnownRun:
    """What is exported about one run."""

    key: RunKey
    status: AlignmentRunStatus
    spec: AlignmentRunSpec
    live: tuple[LiveMetrics, ...] = ()
    """Readings of the running stage's pods."""


@dataclass(frozen=True)
class _Sample:
    """One number of a run."""

    metric: MetricDefinition
    value: float | None
    labels: tuple[str, ...] = ()
    """Values of the labels after namespace and run."""


def run_families(runs: Iterable[KnownRun]) -> list[Metric]:
    """All series of these runs. A number that is not known has no series."""
    families: dict[str, GaugeMetricFamily] = {metric.name: metric.build_gauge() for metric in RUN_METRICS}
    for run in runs:
        for sample in _samples(run):
            if sample.value is not None:
                labels = [run.key.namespace, run.key.name, *sample.labels]
                families[sample.metric.name].add_metric(labels, sample.value)
    return list(families.values())


def progress_ratio(run: KnownRun) -> float:
    """Finished stages of all that the run will have, the running one counted by what it says of itself; 0 to 1."""
    status, spec = run.status, run.spec
    if status.phase is Phase.SUCCEEDED:
        return 1.0
    wanted = _stages_of_iterations(spec.iterations, spec.prompts.refresh, spec.evaluation.every)
    done = float(sum(entry is not None and entry.artifact is not None for entry in (status.fetch, status.export)))
    for iteration in status.iterations:
        required = wanted[iteration.index] if iteration.index < len(wanted) else len(iteration.stages)
        finished = sum(stage.artifact is not None for stage in iteration.stages)
        # iterations that have been summarised keep no stages
        done += min(required, finished) if iteration.stages else required
    total = sum(reading.total for reading in run.live)
    if total > 0:
        weight = len(own_stages_of_job(status.stage)) if status.stage is not None else 1
        done += weight * min(1.0, max(0.0, sum(reading.done for reading in run.live) / total))
    return min(1.0, done / (sum(wanted) + 2.0))


@lru_cache(maxsize=1024)
def _stages_of_iterations(iterations: int, refresh: Refresh, every: int) -> tuple[int, ...]:
    """How many stages each iteration has; asked for at every scrape, by every run."""
    return tuple(len(stages_of_iteration(index, iterations, refresh, every)) for index in range(iterations))


def _samples(run: KnownRun) -> Iterator[_Sample]:
    status = run.status
    yield from (_Sample(_PHASE, float(status.phase is phase), (str(phase),)) for phase in Phase)
    for condition in status.conditions:
        yield _Sample(_CONDITION, float(condition.status == "True"), (str(condition.type), condition.reason))
    yield _Sample(_PROGRESS, progress_ratio(run))
    yield _Sample(_ITERATION, status.iteration)
    yield _Sample(_ITERATIONS, run.spec.iterations)
    stages = [*_present(status.fetch), *(s for i in status.iterations for s in i.stages), *_present(status.export)]
    if status.stage is not None:
        current = next((s for s in reversed(stages) if s.stage is status.stage), StageStatus(stage=status.stage))
        yield _Sample(_STAGE, 1.0, (str(status.stage),))
        yield _Sample(_FAILURES, current.failures, (str(status.stage),))
    yield from (_Sample(_SECONDS, value, (str(stage),)) for stage, value in _durations(stages).items())
    if status.goodput is not None:
        unit, seconds = str(status.goodput.unit), status.goodput.seconds
        yield _Sample(_GOODPUT, status.goodput.share)
        yield from (_Sample(_DEVICE_SECONDS, getattr(seconds, kind), (unit, kind)) for kind in seconds.figures)
    yield from _measured(run)


def _present(stage: StageStatus | None) -> tuple[StageStatus, ...]:
    return () if stage is None else (stage,)


def _durations(stages: Iterable[StageStatus]) -> dict[Stage, float]:
    """Seconds of the latest finished stage of each name."""
    return {
        stage.stage: (stage.completion_time - stage.start_time).total_seconds()
        for stage in stages
        if stage.start_time is not None and stage.completion_time is not None
    }


def _measured(run: KnownRun) -> Iterator[_Sample]:
    """The latest value of each metric that stages have reported; the running stage's own token rate."""
    status = run.status
    rates = gauge_of(GenerateMetrics.tokens_per_second)
    numbers: dict[MetricDef[Any], float] = {}
    for values in (
        _numbers_of_stage(status.fetch),
        *(numbers_of(iteration) for iteration in status.iterations),
        _numbers_of_stage(status.export),
    ):
        numbers |= values
    samples = {(gauge, labels_of(metric)): value for metric, value in numbers.items() if (gauge := gauge_of(metric))}
    if rates is not None and status.stage is not None and run.live:
        samples[rates, (str(status.stage),)] = sum(reading.tokens_per_second for reading in run.live)
    yield from (_Sample(gauge, value, labels) for (gauge, labels), value in samples.items())


def _numbers_of_stage(stage: StageStatus | None) -> dict[MetricDef[Any], float]:
    return {} if stage is None else read_metrics(stage.stage, stage.metrics)
