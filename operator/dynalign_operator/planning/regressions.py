"""What it means, in words, that an iteration got worse."""

from dynalign_contract.settings import EvaluationSettings
from dynalign_operator.api.status import IterationStatus


def explain_regression(settings: EvaluationSettings, iteration: IterationStatus) -> str:
    """What the evaluation holds against a regressed iteration: the win rate, the capability, or both."""
    found = [*_win_rate(iteration), *_capability(settings, iteration)]
    return " and ".join(found) or "is worse than the base model, with confidence"


def describe_interval(value: float, low: float | None, high: float | None) -> str:
    """`0.556 (0.43 to 0.69)`; without its interval where there is none."""
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")


def _win_rate(entry: IterationStatus) -> list[str]:
    if entry.win_rate is None or entry.win_rate_high is None or entry.win_rate_high >= 0.5:
        return []
    rate = describe_interval(entry.win_rate, entry.win_rate_low, entry.win_rate_high)
    return [f"loses against the base model, with a win rate of {rate}"]


def _capability(settings: EvaluationSettings, entry: IterationStatus) -> list[str]:
    limit = settings.capability.max_drop
    if entry.capability_delta is None or entry.capability_delta_high is None or entry.capability_delta_high >= -limit:
        return []
    change = describe_interval(entry.capability_delta, entry.capability_delta_low, entry.capability_delta_high)
    return [f"has changed its capability by {change}, a larger drop than evaluation.capability.maxDrop of {limit:g}"]
