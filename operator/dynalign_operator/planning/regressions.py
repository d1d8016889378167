"""What it means, in words, that an iteration got worse."""

from dynalign_contract.settings import EvaluationSettings
from dynalign_operator.api.status import IterationStatus


def explain_regression(settings: EvaluationSettings, iteration: IterationStatus) -> str:
    """What the evaluation holds against a regressed iteration: the win rate, the capability, or both."""
    found = [*_win_rate(iteration), *_capability(settings, iteration)]
    return " and ".join(found) or "is worse than the base model, with confidence"


def _win_rate(entry: IterationStatus) -> list[str]:
    if entry.win_rate is None or not entry.win_rate.is_below(0.5):
        return []
    return [f"loses against the base model, with a win rate of {entry.win_rate.text()}"]


def _capability(settings: EvaluationSettings, entry: IterationStatus) -> list[str]:
    limit = settings.capability.max_drop
    if entry.capability_delta is None or not entry.capability_delta.is_below(-limit):
        return []
    change = entry.capability_delta.text()
    return [f"has changed its capability by {change}, a larger drop than evaluation.capability.maxDrop of {limit:g}"]
