"""What fetch, rollout, export and report say about what they write."""

from dynalign_contract.config import ExportParams, FetchParams, ReportParams
from dynalign_contract.metrics.definition import MetricDef, StageMetrics, Unit
from dynalign_contract.stages import Stage


class FetchMetrics(StageMetrics):
    """Metrics of the stage fetch."""

    stage = Stage.FETCH
    parameters = MetricDef[FetchParams](Unit.COUNT, "Weights of the model.")
    bytes = MetricDef[FetchParams](Unit.BYTES, "Size of the model folder.")


class RolloutMetrics(StageMetrics):
    """Metrics of a rollout: the times of its stages together. Everything else is reported for each of these."""

    stage = Stage.ROLLOUT


class ExportMetrics(StageMetrics):
    """Metrics of the stage export."""

    stage = Stage.EXPORT
    parameters = MetricDef[ExportParams](Unit.COUNT, "Weights of the exported model.")
    bytes = MetricDef[ExportParams](Unit.BYTES, "Size of the exported folder.")
    relative_change = MetricDef[ExportParams](
        Unit.PLAIN, "Norm of the change of the trained weights divided by the norm of these weights."
    )
    rounding_error = MetricDef[ExportParams](
        Unit.PLAIN,
        "Norm of what rounding to the number format of the base model's files changes in the trained weights, divided "
        "by the norm of their change in training: 0 where the format holds that exactly, 1 where it loses all of it.",
    )


class ReportMetrics(StageMetrics):
    """Metrics of the stage report."""

    stage = Stage.REPORT
    bytes = MetricDef[ReportParams](Unit.BYTES, "Size of report.html.")
    problems = MetricDef[ReportParams](Unit.COUNT, "Artifacts that could not be read and are not in the report.")
