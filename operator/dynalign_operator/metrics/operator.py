"""Metrics of the operator itself: reconciles, queue, requests, watches. All of them exist from the start."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from dynalign_operator.clusters.kubernetes.store import Kind
from dynalign_operator.metrics.definition import MetricDefinition, MetricKind
from dynalign_operator.planning import reasons

_RECONCILE: Final = MetricDefinition("dynalign_reconcile_seconds", MetricKind.HISTOGRAM, "Time of one reconcile.")
_ERRORS: Final = MetricDefinition(
    "dynalign_reconcile_errors",
    MetricKind.COUNTER,
    "Reconciles that failed and were put off, through no fault of the run's user.",
)
_REFUSALS: Final = MetricDefinition(
    "dynalign_reconcile_refusals",
    MetricKind.COUNTER,
    "Reconciles that were put off until the run's user corrects something, as the run's status says.",
    ("reason",),
)
_TRANSITION: Final = MetricDefinition(
    "dynalign_stage_transition_seconds",
    MetricKind.HISTOGRAM,
    "Time from the event that a Job has completed to the event that the run's next Job is there.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_DEPTH: Final = MetricDefinition("dynalign_queue_depth", MetricKind.GAUGE, "Runs that wait for a reconcile.")
_AGE: Final = MetricDefinition(
    "dynalign_queue_age_seconds",
    MetricKind.GAUGE,
    "How long the longest waiting run has waited for a reconcile; 0 when none waits.",
)
_REQUESTS: Final = MetricDefinition(
    "dynalign_api_request_seconds",
    MetricKind.HISTOGRAM,
    "Time of a request to the API server, by its HTTP status, 0 for no answer. Watches are not among them.",
    ("method", "status"),
)
_EVENTS: Final = MetricDefinition("dynalign_watch_events", MetricKind.COUNTER, "What the watches have told.", ("kind",))
_MISSED: Final = MetricDefinition(
    "dynalign_watch_missed_changes",
    MetricKind.COUNTER,
    "Changes that the comparison with the API server found, once a minute, and a watch had not told.",
    ("kind",),
)
_COMPARED: Final = MetricDefinition(
    "dynalign_comparison_timestamp_seconds",
    MetricKind.GAUGE,
    "When all that the watches have told was last compared with the API server, Unix time; 0 before the first time.",
)

OPERATOR_METRICS: Final = (
    _RECONCILE,
    _ERRORS,
    _REFUSALS,
    _TRANSITION,
    _DEPTH,
    _AGE,
    _REQUESTS,
    _EVENTS,
    _MISSED,
    _COMPARED,
)


@dataclass
class OperatorMetrics:
    """Counts what is recorded, in a registry of its own, and computes the rest when it is asked for."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.reconcile_seconds = _RECONCILE.build_histogram(self.registry)
        self.reconcile_errors = _ERRORS.build_counter(self.registry)
        self.reconcile_refusals = _REFUSALS.build_counter(self.registry)
        for reason in (reasons.REFUSED, reasons.NAME_TAKEN):
            self.reconcile_refusals.labels(reason)
        self.transition_seconds = _TRANSITION.build_histogram(self.registry)
        self._requests = _REQUESTS.build_histogram(self.registry)
        self._events = _EVENTS.build_counter(self.registry)
        self._missed = _MISSED.build_counter(self.registry)
        self._compared = 0.0
        for kind in Kind:
            self._events.labels(kind)
            self._missed.labels(kind)

    def record_request(self, method: str, status: int, seconds: float) -> None:
        """A request to the API server: HTTP method, HTTP status (0: no answer), seconds until the whole answer."""
        self._requests.labels(method, str(status)).observe(seconds)

    def record_event(self, kind: Kind) -> None:
        """A watch has told something."""
        self._events.labels(kind).inc()

    def record_comparison(self, missed: Mapping[Kind, int], now: float) -> None:
        """A complete comparison with the API server: changes that each watch missed, Unix time in seconds."""
        for kind, count in missed.items():
            self._missed.labels(kind).inc(count)
        self._compared = now

    def watch(self, queue_depth: Callable[[], int], queue_age: Callable[[], float]) -> None:
        """Export the queue (runs, seconds) from now on."""
        self.registry.register(_Computed(lambda: self._compute(queue_depth(), queue_age())))

    def _compute(self, depth: int, age: float) -> Iterator[Metric]:
        yield _DEPTH.build_gauge(depth)
        yield _AGE.build_gauge(age)
        yield _COMPARED.build_gauge(self._compared)


class _Computed(Collector):
    def __init__(self, compute: Callable[[], Iterator[Metric]]) -> None:
        self._compute = compute

    def collect(self) -> Iterator[Metric]:
        return self._compute()
