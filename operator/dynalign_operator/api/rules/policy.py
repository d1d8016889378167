"""How long things may last."""

from typing import Final

from dynalign_operator.api.rules.rule import Rule
from dynalign_operator.api.v1alpha1 import parse_duration


def _lasts(name: str, attribute: str) -> Rule:
    return Rule(
        at="spec.policy",
        field=name,
        cel=f"self.{name}.matches('[1-9]')",
        message="must be longer than nothing",
        holds=lambda policy: parse_duration(getattr(policy, attribute)).total_seconds() > 0,
    )


POLICY_RULES: Final = (
    _lasts("pendingTimeout", "pending_timeout"),
    _lasts("stallTimeout", "stall_timeout"),
    _lasts("deadline", "deadline"),
)
