"""What a metric is: name, kind, labels and meaning. Exporters and docs/reference/metrics.md are made from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily


class MetricKind(StrEnum):
    """Kinds of Prometheus metrics."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class MetricDefinition:
    """One metric."""

    name: str
    """With its unit; of a counter without `_total`."""
    kind: MetricKind
    text: str
    labels: tuple[str, ...] = ()
    """All of bounded sets but `namespace` and `run`."""
    buckets: tuple[float, ...] = Histogram.DEFAULT_BUCKETS

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its series, as a query has them."""
        match self.kind:
            case MetricKind.GAUGE:
                return (self.name,)
            case MetricKind.COUNTER:
                return (f"{self.name}_total",)
            case MetricKind.HISTOGRAM:
                return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))

    def build_gauge(self, value: float | None = None) -> GaugeMetricFamily:
        """A family to add values to, or one that has its only value."""
        labels: Sequence[str] | None = self.labels if value is None else None
        return GaugeMetricFamily(self.name, self.text, value=value, labels=labels)

    def build_counter(self, registry: CollectorRegistry) -> Counter:
        """A counter at 0."""
        return Counter(self.name, self.text, self.labels, registry=registry)

    def build_histogram(self, registry: CollectorRegistry) -> Histogram:
        """An empty histogram."""
        return Histogram(self.name, self.text, self.labels, buckets=self.buckets, registry=registry)
