"""What is sent to `/chat/completions`, and what comes back. Pure."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

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
    choices: tuple[str, ...] = ()
    """Single characters of which the answer should be one; empty where a text is wanted."""
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
    choices: tuple[float, ...] | None
    """Probability of each of the request's choices, as `read_choices` says; None where it makes none."""
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
        choices=read_choices(text, logprobs or (), request.choices),
        cost=usage.prompt_tokens + usage.completion_tokens or estimate,
    )


def read_choices(text: str, positions: Sequence[_Position], choices: Sequence[str]) -> tuple[float, ...] | None:
    """The probability that an answer gives each of some characters, in their order; None where it names none of them.

    With log-probabilities these are the characters' own at the first token that is one of them and nothing else (white
    space aside), as the engine's own judge reads them. Without them, the first character of them that stands alone in
    the text has 1 and the others have 0; none stands alone in `10`, `4.5` and `BA`.
    """
    for position in positions:
        if position.token.strip() in choices:
            masses = _masses(position, choices)
            return masses if any(masses) else None
    found = re.search(rf"(?<![\w.,])(?:{'|'.join(map(re.escape, choices))})(?!\w|[.,]\d)", text) if choices else None
    return tuple(float(choice == found[0]) for choice in choices) if found else None


def _masses(position: _Position, choices: Sequence[str]) -> tuple[float, ...]:
    """Probability of each choice among the alternatives; ` 7` and `7` are the same digit."""
    logprobs = {other.token: other.logprob for other in (*position.top_logprobs, position)}
    return tuple(
        math.fsum(math.exp(min(logprob, 0.0)) for token, logprob in logprobs.items() if token.strip() == choice)
        for choice in choices
    )
