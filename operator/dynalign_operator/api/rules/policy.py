"""How long things may last, and what a person approves."""

from typing import Final

from dynalign_operator.api.durations import DURATION_PATTERN, MAX_DURATION_SECONDS, count_seconds, seconds_in_cel
from dynalign_operator.api.rules.rule import Rule


def _lasts(name: str, attribute: str) -> Rule:
    return Rule(
        at="spec.policy",
        field=name,
        cel=f"self.{name}.matches('[1-9]')",
        message="must be longer than nothing",
        holds=lambda policy: count_seconds(getattr(policy, attribute)) > 0,
    )


def _ends(name: str, attribute: str) -> Rule:
    return Rule(
        at="spec.policy",
        field=name,
        cel=f"!self.{name}.matches(r'{DURATION_PATTERN}') || "
        f"{seconds_in_cel(f'self.{name}')} <= {MAX_DURATION_SECONDS}",
        message=f"is too long; write at most {MAX_DURATION_SECONDS // 86_400}d, for Kubernetes counts no more seconds",
        holds=lambda policy: count_seconds(getattr(policy, attribute)) <= MAX_DURATION_SECONDS,
    )


POLICY_RULES: Final = (
    _lasts("pendingTimeout", "pending_timeout"),
    _lasts("stallTimeout", "stall_timeout"),
    _lasts("deadline", "deadline"),
    _ends("pendingTimeout", "pending_timeout"),
    _ends("stallTimeout", "stall_timeout"),
    _ends("deadline", "deadline"),
    _ends("ttlAfterFinished", "ttl_after_finished"),
    Rule(
        at="spec.policy",
        field="approval",
        cel="!has(self.approval) || self.approval.all(gate, self.approval.exists_one(other, other == gate))",
        message="names a gate twice; write each once",
        holds=lambda policy: len(set(policy.approval)) == len(policy.approval),
    ),
)
