"""What is sent to `/chat/completions`, and what comes back. Pure."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from dynalign_trainer.judging.scoring import expected_digit

TOP_LOGPROBS: Final = 20
"""The most that OpenAI's API, and vLLM by default, give for a token."""

_CHARACTERS_PER_TOKEN: Final = 4
"""An estimate, for servers that do not say how many tokens they have counted."""


@dataclass(frozen=True)
class ChatRequest:
    """One user turn to be answered."""

    message: str
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    logprobs: bool = False
    """Ask for the likeliest alternatives of every token."""

    def body(self, model: str) -> dict[str, Any]:
        """The JSON of the request."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": self.message}],
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }
        return body | ({"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self.logprobs else {})


@dataclass(frozen=True)
class Reply:
    """An answer."""

    text: str
    finished: bool
    """It ended by itself, not at `max_tokens`."""
    score: float | None
    """The digit that it gives, 0 to 9, as `read_digit` says; None where it gives none."""
    cost: int
    """Tokens read and written."""


class _Alternative(BaseModel):
    token: str
    logprob: float


class _Position(_Alternative):
    top_logprobs: list[_Alternative] = []


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    """The part of OpenAI's chat completion that is read; the rest is ignored."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def parse_reply(data: bytes, request: ChatRequest) -> Reply:
    """The answer in a response's body. Raises ValueError, with what is wrong, when it is no chat completion."""
    try:
        found = _Completion.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    choice = found.choices[0]
    text = choice.message.content or ""
    logprobs = choice.logprobs.content if choice.logprobs is not None else None
    usage = found.usage or _Usage()
    estimate = (len(request.message) + len(text)) // _CHARACTERS_PER_TOKEN + 1
    return Reply(
        text=text,
        finished=choice.finish_reason != "length",
        score=read_digit(text, logprobs or ()),
        cost=usage.prompt_tokens + usage.completion_tokens or estimate,
    )


def read_digit(text: str, positions: Sequence[_Position]) -> float | None:
    """The score, 0 to 9, that an answer gives; None where it holds none.

    With log-probabilities it is the expected digit at the first token that is a digit and nothing else (white space
    aside), as the engine's own judge reads it; without them it is the first digit that stands alone in the text.
    """
    for position in positions:
        if _is_digit(position.token):
            return _expected(position)
    found = _lone_digits(text)
    return float(found[0]) if found else None


def _expected(position: _Position) -> float:
    """Over the digits among the alternatives; ` 7` and `7` are the same digit."""
    logprobs = {other.token: other.logprob for other in (*position.top_logprobs, position)}
    masses = [0.0] * 10
    for text, logprob in logprobs.items():
        if _is_digit(text):
            masses[int(text.strip())] += math.exp(min(logprob, 0.0))
    score, _ = expected_digit([math.log(mass) if mass > 0 else -math.inf for mass in masses])
    return score


def _is_digit(text: str) -> bool:
    return len(text.strip()) == 1 and text.strip() in "0123456789"


def _lone_digits(text: str) -> Sequence[str]:
    """Digits with neither a digit nor a decimal point beside them: none in `10` and `4.5`."""
    return re.findall(r"(?<![\d.,])[0-9](?!\d|[.,]\d)", text)
