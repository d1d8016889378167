"""What a server does not take, as its refusals have shown, and requests as it takes them. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from dynalign_trainer.endpoints.complaints import Refusal

FEWER_ALTERNATIVES: Final = 5
"""`top_logprobs` of servers that refuse OpenAI's 20."""

_LENGTHS: Final = ("max_tokens", "max_completion_tokens")
_TOO_LONG: Final = re.compile(
    r"too (?:large|long|big|many|high)|context (?:length|window|size)|maximum (?:context|value|allowed|number)|at most"
    r"|exceed|less than|greater than|must be (?:<|positive|at least)|quota|credits",
    re.IGNORECASE,
)
"""Refusals of a length's value, which leaving it out would not help with."""
_LOGPROBS: Final = re.compile(r"log.?prob", re.IGNORECASE)
_LIMITED: Final = re.compile(
    r"between|at most|<=?|less than|maximum|range|exceed|greater|up to|too (?:large|many|high)", re.IGNORECASE
)
"""Refusals of a value that a smaller value may avoid."""
_ORDER: Final = ("top_logprobs", "logprobs", "seed", "top_p", "temperature", *_LENGTHS)
"""In which order parameters are given up that one refusal names; what matters least to the results goes first."""


@dataclass(frozen=True)
class Manners:
    """How a server wants to be asked."""

    left_out: frozenset[str] = frozenset()
    """Parameters that it refuses."""
    completion_tokens: bool = False
    """It takes `max_completion_tokens` in place of `max_tokens`."""
    fewer_alternatives: bool = False
    """It gives no more than `FEWER_ALTERNATIVES` of a token."""
    thinks: bool = False
    """It has spent a whole answer on thoughts, so that it needs room for them."""

    def apply(self, body: Mapping[str, Any], thought_tokens: int) -> dict[str, Any]:
        """The body of a request as the server takes it; `thought_tokens` are added to the length where it thinks."""
        found = {name: value for name, value in body.items() if name not in self.left_out}
        if self.fewer_alternatives and "top_logprobs" in found:
            found["top_logprobs"] = FEWER_ALTERNATIVES
        if "max_tokens" in body:
            length = body["max_tokens"] + (thought_tokens if self.thinks else 0)
            found.pop("max_tokens", None)
            name = _LENGTHS[self.completion_tokens]
            found |= {} if name in self.left_out else {name: length}
        return found

    def learn(self, body: Mapping[str, Any], refusal: Refusal) -> "Manners | None":
        """The manners after a refusal of this body; None where it names nothing that could be left out or replaced."""
        named = [name for name in _ORDER if name in body and refusal.names(name)]
        if refusal.parameter in body and refusal.parameter in _ORDER:
            named = [refusal.parameter]
        elif not named and _LOGPROBS.search(refusal.message):
            named = [name for name in ("top_logprobs", "logprobs") if name in body]
        for name in named:
            if name in _LENGTHS:
                if _TOO_LONG.search(refusal.message):
                    continue
                if name == "max_tokens" and not self.completion_tokens:
                    return replace(self, completion_tokens=True)
                return replace(self, left_out=self.left_out | {name})
            if name == "top_logprobs" and body[name] > FEWER_ALTERNATIVES and _LIMITED.search(refusal.message):
                return replace(self, fewer_alternatives=True)
            also = {"logprobs": {"top_logprobs"}, "top_logprobs": {"logprobs"}}.get(name, set())
            return replace(self, left_out=self.left_out | {name} | also)
        return None

    def learn_shorter(self, body: Mapping[str, Any]) -> "Manners | None":
        """The manners after an answer that was too long; None where it could not be made shorter without harm."""
        if body.get("top_logprobs", 0) > FEWER_ALTERNATIVES:
            return replace(self, fewer_alternatives=True)
        if "logprobs" in body:
            return replace(self, left_out=self.left_out | {"logprobs", "top_logprobs"})
        return None

    def merge(self, other: "Manners") -> "Manners":
        """What either knows: requests under way at a time learn side by side."""
        return Manners(
            left_out=self.left_out | other.left_out,
            completion_tokens=self.completion_tokens or other.completion_tokens,
            fewer_alternatives=self.fewer_alternatives or other.fewer_alternatives,
            thinks=self.thinks or other.thinks,
        )

    def describe(self, before: "Manners") -> str:
        """What is new compared with `before`, as a clause for the log."""
        told = [f"it takes no {name}" for name in sorted(self.left_out - before.left_out)]
        told += ["it takes max_completion_tokens instead of max_tokens"] * (
            self.completion_tokens and not before.completion_tokens
        )
        told += [f"it gives at most {FEWER_ALTERNATIVES} alternatives of a token"] * (
            self.fewer_alternatives and not before.fewer_alternatives
        )
        told += ["it reasons before it answers and gets room for that"] * (self.thinks and not before.thinks)
        return ", ".join(told)
