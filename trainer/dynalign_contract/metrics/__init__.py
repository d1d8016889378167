"""Every number that a stage reports in its result, by stage: `JudgeMetrics.canary_auc` is one definition.

The stages' results, the status, the operator's metrics, the command line and docs/reference/metrics.md derive from
these definitions.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from dynalign_contract.metrics.definition import (
    AcrossShards,
    Export,
    IntervalDef,
    IntervalFamily,
    MetricDef,
    MetricFamily,
    MetricValues,
    StageMetrics,
    Unit,
)
from dynalign_contract.metrics.evaluate import EvaluateMetrics
from dynalign_contract.metrics.generate import GenerateMetrics
from dynalign_contract.metrics.judge import JudgeMetrics
from dynalign_contract.metrics.model import ExportMetrics, FetchMetrics, ReportMetrics, RolloutMetrics
from dynalign_contract.metrics.prompts import PromptsMetrics
from dynalign_contract.metrics.train import TrainMetrics
from dynalign_contract.result import MEMBER_SEPARATOR, Metric
from dynalign_contract.stages import Stage

STAGE_METRICS: Final[Mapping[Stage, type[StageMetrics]]] = MappingProxyType(
    {
        metrics.stage: metrics
        for metrics in (
            FetchMetrics,
            RolloutMetrics,
            PromptsMetrics,
            GenerateMetrics,
            JudgeMetrics,
            TrainMetrics,
            EvaluateMetrics,
            ExportMetrics,
            ReportMetrics,
        )
    }
)
"""Stage -> its metrics."""

_SINGLES: Final = {stage: metrics.singles() for stage, metrics in STAGE_METRICS.items()}
_FAMILIES: Final = {stage: metrics.families() for stage, metrics in STAGE_METRICS.items()}


def find_definition(stage: Stage, name: str) -> MetricDef[Any] | None:
    """The definition of the metric that a stage's result has under this name; None for one of another version."""
    family, separator, member = name.partition(MEMBER_SEPARATOR)
    if not separator:
        return _SINGLES[stage].get(name)
    return _FAMILIES[stage][family].of(member) if family in _FAMILIES[stage] else None


def read_metrics(stage: Stage, metrics: Iterable[Metric]) -> dict[MetricDef[Any], float]:
    """Definition -> value for those metrics of a stage's result that this version defines and that have a value."""
    found = ((find_definition(stage, metric.name), metric.value) for metric in metrics)
    return {definition: value for definition, value in found if definition is not None and value is not None}


__all__ = [
    "STAGE_METRICS",
    "AcrossShards",
    "EvaluateMetrics",
    "Export",
    "ExportMetrics",
    "FetchMetrics",
    "GenerateMetrics",
    "IntervalDef",
    "IntervalFamily",
    "JudgeMetrics",
    "MetricDef",
    "MetricFamily",
    "MetricValues",
    "PromptsMetrics",
    "ReportMetrics",
    "RolloutMetrics",
    "StageMetrics",
    "TrainMetrics",
    "Unit",
    "find_definition",
    "read_metrics",
]
