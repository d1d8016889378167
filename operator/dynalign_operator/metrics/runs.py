"""Metrics of runs, computed from their status when they are asked for, so that a deleted run leaves none."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from dynalign_contract.metrics import ASPECT_REWARD, METRICS, START_SECONDS
from dynalign_contract.settings import Refresh
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import AlignmentRunStatus, IterationStatus, Phase, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.stage_metrics import LiveMetrics
from dynalign_operator.metrics.definition import MetricDefinition, MetricKind
from dynalign_operator.planning.sequence import stages_of_iteration

_TOKENS: Final = "tokens_per_second"


def _gauge(name: str, text: str, *labels: str) -> MetricDefinition:
    return MetricDefinition(f"dynalign_run_{name}", MetricKind.GAUGE, text, ("namespace", "run", *labels))


_PHASE: Final = _gauge("phase", "1 for the run's phase, 0 for the others.", "phase")
_CONDITION: Final = _gauge("condition", "1 while the condition is True, 0 otherwise.", "condition", "reason")
_PROGRESS: Final = _gauge("progress_ratio", "Share of the run that is done, 0 to 1.")
_ITERATION: Final = _gauge("iteration", "Current iteration, from 0.")
_ITERATIONS: Final = _gauge("iterations", "Iterations that are wanted.")
_STAGE: Final = _gauge("stage", "1 for the current stage; none once the run has ended.", "stage")
_FAILURES: Final = _gauge(
    "stage_failures", "Failed attempts of the current stage, those that count against policy.retries.", "stage"
)
_SECONDS: Final = _gauge(
    "stage_seconds",
    "Duration of the latest finished stage of this name, pauses and repeated attempts included.",
    "stage",
)
_START: Final = _gauge(
    "stage_start_seconds", "From a stage's process start to its first useful work, latest finished stage.", "stage"
)
_TOKENS_PER_SECOND: Final = _gauge(
    _TOKENS,
    "Tokens read or written a second by all shards together: at present while the stage runs, on average after it.",
    "stage",
)
_REWARD: Final = _gauge("reward", "Mean reward after penalties, latest judging, 0 to 1.")
_REWARD_ASPECT: Final = _gauge("reward_aspect", "Mean reward of an aspect, latest judging, 0 to 1.", "aspect")
_WIN_RATE: Final = _gauge("win_rate", "Held-out win rate against the base model, latest evaluation, 0 to 1.")
_WIN_RATE_LOW: Final = _gauge("win_rate_low", "Lower end of the win rate's confidence interval.")
_WIN_RATE_HIGH: Final = _gauge("win_rate_high", "Upper end of the win rate's confidence interval.")
_CAPABILITY: Final = _gauge("capability", "Mean score over the tasks of evaluation.capability, latest examination.")
_CAPABILITY_DELTA: Final = _gauge("capability_delta", "The same minus the base model's score.")
_CAPABILITY_DELTA_LOW: Final = _gauge("capability_delta_low", "Lower end of the difference's confidence interval.")
_CAPABILITY_DELTA_HIGH: Final = _gauge("capability_delta_high", "Upper end of the difference's confidence interval.")

_MEASURED: Final = {
    place: _gauge(definition.name, definition.text) for place, definition in METRICS.items() if definition.exported
}
"""Numbers that stages measure and that are exported under their own names."""

RUN_METRICS: Final = (
    *(_PHASE, _CONDITION, _PROGRESS, _ITERATION, _ITERATIONS, _STAGE, _FAILURES, _SECONDS, _START),
    *(_TOKENS_PER_SECOND, _REWARD, _REWARD_ASPECT, _WIN_RATE, _WIN_RATE_LOW, _WIN_RATE_HIGH),
    *(_CAPABILITY, _CAPABILITY_DELTA, _CAPABILITY_DELTA_LOW, _CAPABILITY_DELTA_HIGH, *_MEASURED.values()),
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
        done += min(1.0, max(0.0, sum(reading.done for reading in run.live) / total))
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
    yield from _judged(status.iterations)
    yield from _win_rate(status.iterations)
    yield from _capability(status.iterations)
    stages = [*_present(status.fetch), *(s for i in status.iterations for s in i.stages), *_present(status.export)]
    if status.stage is not None:
        current = next((s for s in reversed(stages) if s.stage is status.stage), StageStatus(stage=status.stage))
        yield _Sample(_STAGE, 1.0, (str(status.stage),))
        yield _Sample(_FAILURES, current.failures, (str(status.stage),))
    yield from _finished(stages, _rates(run))


def _present(stage: StageStatus | None) -> tuple[StageStatus, ...]:
    return () if stage is None else (stage,)


def _judged(iterations: Iterable[IterationStatus]) -> Iterator[_Sample]:
    """The latest judging's, with all digits."""
    judged = [iteration.reward for iteration in iterations if iteration.reward is not None]
    yield from (_Sample(_REWARD, reward) for reward in judged[-1:])


def _capability(iterations: Iterable[IterationStatus]) -> Iterator[_Sample]:
    """The latest examination's, all of the same one."""
    for latest in [iteration for iteration in iterations if iteration.capability is not None][-1:]:
        yield _Sample(_CAPABILITY, latest.capability)
        yield _Sample(_CAPABILITY_DELTA, latest.capability_delta)
        yield _Sample(_CAPABILITY_DELTA_LOW, latest.capability_delta_low)
        yield _Sample(_CAPABILITY_DELTA_HIGH, latest.capability_delta_high)


def _win_rate(iterations: Iterable[IterationStatus]) -> Iterator[_Sample]:
    """The latest evaluation's, rate and interval of the same one."""
    rated = [iteration for iteration in iterations if iteration.win_rate is not None]
    if rated:
        yield _Sample(_WIN_RATE, rated[-1].win_rate)
        yield _Sample(_WIN_RATE_LOW, rated[-1].win_rate_low)
        yield _Sample(_WIN_RATE_HIGH, rated[-1].win_rate_high)


def _rates(run: KnownRun) -> dict[Stage, float]:
    """Tokens a second of the stage that runs."""
    if run.status.stage is None or not run.live:
        return {}
    return {run.status.stage: sum(reading.tokens_per_second for reading in run.live)}


def _finished(stages: Iterable[StageStatus], rates: dict[Stage, float]) -> Iterator[_Sample]:
    """What the stages measured, the latest of each; `rates` are those of stages that run."""
    numbers: dict[tuple[Stage, str], float] = {}
    seconds: dict[Stage, float] = {}
    for stage in stages:
        numbers |= {(stage.stage, m.name): m.value for m in stage.metrics if m.value is not None}
        if stage.start_time is not None and stage.completion_time is not None:
            seconds[stage.stage] = (stage.completion_time - stage.start_time).total_seconds()
    numbers |= {(stage, _TOKENS): rate for stage, rate in rates.items()}
    yield from (_Sample(_SECONDS, value, (str(stage),)) for stage, value in seconds.items())
    for (stage_name, name), value in numbers.items():
        if (stage_name, name) in _MEASURED:
            yield _Sample(_MEASURED[stage_name, name], value)
        elif name == _TOKENS:
            yield _Sample(_TOKENS_PER_SECOND, value, (str(stage_name),))
        elif name == START_SECONDS:
            yield _Sample(_START, value, (str(stage_name),))
        elif stage_name is ASPECT_REWARD.stage and (aspect := ASPECT_REWARD.member_of(name)) is not None:
            yield _Sample(_REWARD_ASPECT, value, (aspect,))
