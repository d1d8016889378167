"""What is taken off an answer's reward for its form: refusals, cut or overlong answers, another language. Pure."""

import math
import re
from collections.abc import Mapping
from typing import Final

from dynalign_contract.settings import Penalties
from dynalign_trainer.models.languages import recognise_language

_REFUSAL: Final = re.compile(
    r"(?:(?:i'm|i am)(?: really| very| so)? sorry\b[^.!?]{0,40}|(?:sorry|unfortunately)\b[^.!?]{0,20}"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.!?]{0,60})?\W*"
    r"\b(?:i (?:can't|cannot|could not|won't|will not|must decline|have to decline)"
    r"|(?:i'm|i am) (?:unable|not able|not allowed)) (?:to )?"
    r"(?:help|assist|answer|comply|fulfil|provide|do that|do this|discuss|engage|support|continue|create|write)",
    re.IGNORECASE,
)
"""An English answer whose first sentence declines the request."""


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
