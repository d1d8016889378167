"""Every metric that the operator serves."""

from dynalign_operator.metrics.operator import OperatorMetrics
from dynalign_operator.metrics.run_texts import RunTexts
from dynalign_operator.metrics.runs import KnownRun

__all__ = ["KnownRun", "OperatorMetrics", "RunTexts"]
