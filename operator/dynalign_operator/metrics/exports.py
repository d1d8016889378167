"""The gauges of runs that come from metrics of stages: which there are, and the labels of a value."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from dynalign_contract.metrics import STAGE_METRICS, MetricDef
from dynalign_operator.metrics.definition import MetricDefinition, MetricKind


def run_gauge(name: str, text: str, *labels: str) -> MetricDefinition:
    """A gauge of runs: `dynalign_run_NAME` with the labels `namespace` and `run` before its own."""
    return MetricDefinition(f"dynalign_run_{name}", MetricKind.GAUGE, text, ("namespace", "run", *labels))


def gauge_of(metric: MetricDef[Any]) -> MetricDefinition | None:
    """The gauge that a stage's metric is exported as; None if it is not exported."""
    return None if metric.export_name is None else EXPORTS[metric.export_name]


def labels_of(metric: MetricDef[Any]) -> tuple[str, ...]:
    """Values of the labels of an exported metric after namespace and run."""
    stage = (str(metric.stage),) if metric.export and metric.export.by_stage else ()
    return (*stage, *([metric.member] if metric.member else []))


def _build() -> Iterator[tuple[str, MetricDefinition]]:
    for metrics in STAGE_METRICS.values():
        labelled = [
            *((metric, ()) for metric in metrics.singles().values()),
            *((family.each, (family.member,)) for family in metrics.families().values()),
        ]
        for metric, members in labelled:
            if metric.export is not None and metric.export_name is not None:
                labels = (*(["stage"] if metric.export.by_stage else []), *members)
                text = metric.export.text or f"{metric.text} Value of the latest {metric.stage} stage ({metric.unit})."
                yield metric.export_name, run_gauge(metric.export_name, text, *labels)


EXPORTS: Final[Mapping[str, MetricDefinition]] = MappingProxyType(dict(_build()))
"""Name of an export -> its gauge."""
