"""What writes a run's numbers to trackers."""

from typing import Final

from dynalign_contract.settings import TrackingSettings
from dynalign_operator.api.rules.rule import Rule
from dynalign_operator.api.v1alpha1 import ReportTime

_NAMED: Final = tuple(TrackingSettings.model_fields)
_IS_NAMED: Final = " || ".join(f"has(self.tracking.{name})" for name in _NAMED)

TRACKING_RULES: Final = (
    Rule(
        at="spec",
        field="tracking",
        cel=f"self.report.when != '{ReportTime.NEVER}' || !({_IS_NAMED})",
        message="would never be written, for the trackers are written with the report; set report.when to AtEnd or "
        "EveryIteration, or remove tracking",
        holds=lambda spec: (
            spec.report.when is not ReportTime.NEVER or not any(getattr(spec.tracking, name) for name in _NAMED)
        ),
    ),
)
