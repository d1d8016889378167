"""Every metric of the operator. Those of runs are computed when they are asked for, so a deleted run leaves none."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dynalign_operator.api.status import AlignmentRunStatus, Phase, StageStatus
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.stage_metrics import LiveMetrics

_RUN: Final = ["namespace", "run"]
_ASPECT: Final = "reward_"
_SPREAD: Final = "reward_std"
_LEARNING: Final = {
    "kl": "KL divergence per token of the latest training, nats.",
    "canary_auc": "Probability that a real answer outscores a canary, latest judging; 0.5 is chance.",
    "duplicate_share": "Share of written prompts that were duplicates, latest iteration.",
}


@dataclass(frozen=True)
class KnownRun:
    """What is exported about one run."""

    key: RunKey
    status: AlignmentRunStatus
    total_iterations: int
    live: tuple[LiveMetrics, ...] = ()
    """Readings of the running stage's pods."""


@dataclass
class OperatorMetrics:
    """The operator's own counters, in a registry of its own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.reconcile_seconds = Histogram(
            "dynalign_reconcile_seconds", "Time of one reconcile.", registry=self.registry
        )
        self.reconcile_errors = Counter(
            "dynalign_reconcile_errors", "Reconciles that failed and were put off.", registry=self.registry
        )

    def watch(self, runs: Callable[[], Iterable[KnownRun]], queue_depth: Callable[[], int]) -> None:
        """Export these runs, and the queue, from now on."""
        self.registry.register(_Runs(runs, queue_depth))


class _Runs(Collector):
    def __init__(self, runs: Callable[[], Iterable[KnownRun]], queue_depth: Callable[[], int]) -> None:
        self._runs, self._queue_depth = runs, queue_depth

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("dynalign_queue_depth", "Runs that wait for a reconcile.", value=self._queue_depth())
        yield from run_families(self._runs())


def run_families(runs: Iterable[KnownRun]) -> list[Metric]:
    """All series of these runs. Labels: namespace, run, and bounded names."""
    families = {
        "phase": GaugeMetricFamily("dynalign_run_phase", "1 for the run's phase.", labels=[*_RUN, "phase"]),
        "progress": GaugeMetricFamily("dynalign_run_progress_ratio", "Share of the run that is done.", labels=_RUN),
        "iteration": GaugeMetricFamily("dynalign_run_iteration", "Current iteration, from 0.", labels=_RUN),
        "stage": GaugeMetricFamily("dynalign_run_stage", "1 for the current stage.", labels=[*_RUN, "stage"]),
        "seconds": GaugeMetricFamily(
            "dynalign_run_stage_seconds", "Duration of the latest finished stage.", labels=[*_RUN, "stage"]
        ),
        "reward": GaugeMetricFamily("dynalign_run_reward", "Mean reward, latest judging.", labels=_RUN),
        "aspect": GaugeMetricFamily(
            "dynalign_run_reward_aspect", "Mean reward of an aspect, latest judging.", labels=[*_RUN, "aspect"]
        ),
        "win_rate": GaugeMetricFamily("dynalign_run_win_rate", "Held-out win rate against the base.", labels=_RUN),
        "tokens": GaugeMetricFamily(
            "dynalign_run_tokens_per_second", "Tokens processed a second by the running stage.", labels=_RUN
        ),
        **{name: GaugeMetricFamily(f"dynalign_run_{name}", text, labels=_RUN) for name, text in _LEARNING.items()},
    }
    for run in runs:
        _add(families, run)
    return list(families.values())


def _add(families: dict[str, GaugeMetricFamily], run: KnownRun) -> None:
    status, labels = run.status, [run.key.namespace, run.key.name]
    for phase in Phase:
        families["phase"].add_metric([*labels, str(phase)], float(status.phase is phase))
    numbers = {
        "progress": progress_ratio(run),
        "iteration": status.iteration,
        "reward": status.reward,
        "win_rate": status.win_rate,
        "tokens": sum(reading.tokens_per_second for reading in run.live) if run.live else None,
    }
    for name, value in numbers.items():
        if value is not None:
            families[name].add_metric(labels, value)
    if status.stage is not None:
        families["stage"].add_metric([*labels, str(status.stage)], 1.0)
    _add_stages(families, labels, [stage for iteration in status.iterations for stage in iteration.stages])


def _add_stages(families: dict[str, GaugeMetricFamily], labels: list[str], stages: Iterable[StageStatus]) -> None:
    """What the stages measured, the latest of each name."""
    numbers: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for stage in stages:
        numbers |= {metric.name: metric.value for metric in stage.metrics if metric.value is not None}
        if stage.start_time is not None and stage.completion_time is not None:
            seconds[str(stage.stage)] = (stage.completion_time - stage.start_time).total_seconds()
    for stage_name, value in seconds.items():
        families["seconds"].add_metric([*labels, stage_name], value)
    for name, value in numbers.items():
        if name in _LEARNING:
            families[name].add_metric(labels, value)
        elif name.startswith(_ASPECT) and name != _SPREAD:
            families["aspect"].add_metric([*labels, name.removeprefix(_ASPECT)], value)


def progress_ratio(run: KnownRun) -> float:
    """Finished stages of all stages, the running one counted by what it says of itself; 0 to 1."""
    status = run.status
    if status.phase is Phase.SUCCEEDED:
        return 1.0
    entries = [status.fetch, *(stage for iteration in status.iterations for stage in iteration.stages), status.export]
    done = float(sum(entry is not None and entry.artifact is not None for entry in entries))
    # iterations that have been summarised keep no stages
    done += 5.0 * sum(not iteration.stages for iteration in status.iterations)
    total = sum(reading.total for reading in run.live)
    if total > 0:
        done += min(1.0, sum(reading.done for reading in run.live) / total)
    return min(1.0, done / (5.0 * run.total_iterations + 2.0))
