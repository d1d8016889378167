"""From a judge's next-token distribution to a reward. Pure."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from dynalign_contract.objective import Aggregate
from dynalign_contract.settings import Penalties
from dynalign_trainer.languages import recognise_language

MAX_SCORE: Final = 9.0

_REFUSAL: Final = re.compile(
    r"(?:(?:i'm|i am)(?: really| very| so)? sorry\b[^.!?]{0,40}|(?:sorry|unfortunately)\b[^.!?]{0,20}"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.!?]{0,60})?\W*"
    r"\b(?:i (?:can't|cannot|could not|won't|will not|must decline|have to decline)"
    r"|(?:i'm|i am) (?:unable|not able|not allowed)) (?:to )?"
    r"(?:help|assist|answer|comply|fulfil|provide|do that|do this|discuss|engage|support|continue|create|write)",
    re.IGNORECASE,
)
"""An English answer whose first sentence declines the request."""


def expected_digit(logprobs: Sequence[float]) -> tuple[float, float]:
    """Expected digit and its mass, from the log-probabilities of the digits 0 to 9 (shape: 10).

    The expectation is sum(d * p(d)) / sum(p(d)), between 0 and 9 (NaN when the digits have no probability at all or a
    log-probability is NaN); the mass is sum(p(d)), the probability that the next token is a digit (docs/method.md,
    "Expected score").
    """
    largest = max(logprobs)
    if not math.isfinite(largest) or any(math.isnan(value) for value in logprobs):
        return math.nan, 0.0
    weights = [math.exp(value - largest) for value in logprobs]
    total = sum(weights)
    expected = sum(digit * weight for digit, weight in enumerate(weights)) / total
    return expected, min(total * math.exp(largest), 1.0)


def aggregate(scores: Sequence[float], how: Aggregate) -> float:
    """One reward from 0 to 1 out of the aspects' scores (each 0 to 9); NaN as soon as one of them is NaN."""
    parts = [score / MAX_SCORE for score in scores]
    if not parts:
        raise ValueError("an answer without scores has no reward")
    if any(math.isnan(part) for part in parts):
        return math.nan
    match how:
        case Aggregate.GEOMETRIC_MEAN:
            return 0.0 if min(parts) <= 0 else math.exp(math.fsum(map(math.log, parts)) / len(parts))
        case Aggregate.MEAN:
            return math.fsum(parts) / len(parts)
        case Aggregate.MINIMUM:
            return min(parts)


def standard_error(votes: Sequence[Sequence[float]], how: Aggregate) -> float:
    """Standard error of a reward whose aspects' scores are means over votes, 0 to 1.

    `votes` are scores of shape (aspects, votes), NaN for a vote that was not valid, empty for an aspect that was not
    voted on. Each vote is aggregated over the aspects as if it were alone; the error is the sample standard deviation
    (n - 1) of these n rewards, divided by sqrt(n). That is exact for the mean, and for geometric mean and minimum as
    good as they are linear over the votes' spread. A vote counts only where every aspect has it; NaN for n < 2.
    """
    rewards = [aggregate(vote, how) for vote in zip(*votes, strict=False)]
    whole = [reward for reward in rewards if not math.isnan(reward)]
    return statistics.stdev(whole) / math.sqrt(len(whole)) if len(whole) > 1 else math.nan


def is_refusal(text: str) -> bool:
    """Whether an answer opens with a refusal; English phrases only."""
    return _REFUSAL.match(text.lstrip(' \n\t"*').replace("\u2019", "'")) is not None


def find_penalties(
    text: str, *, prompt: str = "", length: int, truncated: bool, settings: Penalties, max_tokens: int
) -> dict[str, float]:
    """What is taken off an answer's reward, by name; only penalties that are switched on and apply.

    `prompt` is the last turn that the answer replies to, `length` is in tokens. The overlong penalty rises linearly
    from 0 at `overlong_from * max_tokens` to its full value at `max_tokens` (the soft overlong punishment of DAPO,
    arXiv 2503.14476, with a bound of our own).
    """
    start = settings.overlong_from * max_tokens
    over = min(max((length - start) / (max_tokens - start), 0.0), 1.0)
    found = {
        "truncated": settings.truncated if truncated else 0.0,
        "refusal": settings.refusal if is_refusal(text) else 0.0,
        "overlong": settings.overlong * over,
        "language_switch": settings.language_switch if settings.language_switch and _switches(prompt, text) else 0.0,
    }
    return {name: value for name, value in found.items() if value > 0}


def _switches(prompt: str, answer: str) -> bool:
    """Whether both are long enough to tell their languages, and these differ."""
    asked, answered = recognise_language(prompt), recognise_language(answer)
    return asked is not None and answered is not None and asked != answered


def final_reward(raw: float, penalties: Mapping[str, float]) -> float:
    """The raw reward minus all penalties; may be negative, for cutting at 0 would hide how bad an answer is."""
    return raw - math.fsum(penalties.values())
