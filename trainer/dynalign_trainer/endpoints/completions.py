"""What is sent to `/chat/completions`, and what comes back. Pure."""

import math
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from dynalign_trainer.endpoints.reading import Alternative, Position, read_choices
from dynalign_trainer.models.reasoning import part_reasoning

TOP_LOGPROBS: Final = 20
"""The most that OpenAI's API, and vLLM by default, give for a token."""

_CHARACTERS_PER_TOKEN: Final = 4
"""An estimate, for servers that do not say how many tokens they have counted."""
_CUT: Final = frozenset({"length", "max_tokens", "model_length"})
"""Reasons of an end that was no end, in lower case."""
_THOUGHT_PARTS: Final = ("thinking", "reasoning", "reasoning_content", "summary")


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
        """The JSON of the request, before it is written as the server takes it."""
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
    """Without what the model thought before it."""
    finished: bool
    """It ended by itself, not at `max_tokens`."""
    choices: tuple[float, ...] | None
    """Probability of each of the request's choices, as `read_choices` says; None where it makes none."""
    cost: int
    """Tokens read and written."""
    reasoning: str = ""
    """What the model thought, as far as the server shows it."""
    read: int = 0
    """Tokens of the prompt among `cost`; 0 if the server does not say."""
    cached: int = 0
    """Tokens of the prompt that the server found in its cache; 0 if it does not say."""

    @property
    def cut_in_thought(self) -> bool:
        """Whether its length ended before the answer began."""
        return not self.finished and not self.text.strip()


class _Alternative(BaseModel):
    token: str
    logprob: float


class _Position(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Message(BaseModel):
    content: str | list[Any] | dict[str, Any] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: Any = None


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Any = None


class _Completion(BaseModel):
    """The part of OpenAI's chat completion that is read; the rest is ignored."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None


def parse_reply(data: bytes, request: ChatRequest) -> Reply:
    """The answer in a response's body. Raises ValueError, with what is wrong, when it is no chat completion."""
    try:
        found = _Completion.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    choice = found.choices[0]
    written, aside = _part_content(choice.message)
    parted = part_reasoning(written)
    reasoning = "\n".join(part for part in (*aside, parted.reasoning) if part)
    usage = _usage(found.usage)
    read = usage.prompt_tokens or 0
    estimate = (len(request.message) + len(written) + sum(map(len, aside))) // _CHARACTERS_PER_TOKEN + 1
    return Reply(
        text=parted.answer,
        finished=(choice.finish_reason or "").lower() not in _CUT,
        choices=read_choices(parted.answer, _positions(choice.logprobs), request.choices),
        cost=read + (usage.completion_tokens or 0) or estimate,
        reasoning=reasoning,
        read=read,
        cached=min(_cached(usage.prompt_tokens_details), read),
    )


def _part_content(message: _Message) -> tuple[str, list[str]]:
    """The text of a message, and the thoughts that stand beside it in fields or parts of their own."""
    parts = message.content if isinstance(message.content, list) else [message.content]
    thoughts = [_text(field) for field in (message.reasoning_content or message.reasoning or message.thinking,)]
    written = []
    for part in parts:
        if isinstance(part, dict) and part.get("type") in _THOUGHT_PARTS:
            thoughts.append(_text(next((part[name] for name in _THOUGHT_PARTS if name in part), part)))
        else:
            written.append(_text(part))
    return "".join(written), [thought for thought in thoughts if thought]


def _text(part: Any) -> str:
    """The text in a part: itself, or what its `text` or `content` holds, parts of parts included."""
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "".join(map(_text, part))
    if isinstance(part, dict):
        return _text(next((part[name] for name in ("text", "content", "value") if part.get(name)), None))
    return ""


def _positions(logprobs: Any) -> list[Position]:
    """The tokens with their alternatives; none where the server tells none, or in another form than OpenAI's."""
    try:
        found = _Logprobs.model_validate(logprobs)
    except ValidationError:
        return []
    return [
        Position(
            position.token,
            _number(position.logprob),
            tuple(Alternative(other.token, _number(other.logprob)) for other in position.top_logprobs or ()),
        )
        for position in found.content or ()
    ]


def _number(logprob: float) -> float:
    return -math.inf if math.isnan(logprob) else logprob


def _cached(details: Any) -> int:
    """The server's count of cached tokens; 0 if it gives none, or in another form."""
    try:
        return max(_PromptDetails.model_validate(details).cached_tokens or 0, 0)
    except ValidationError:
        return 0


def _usage(usage: Any) -> _Usage:
    """The server's counts; empty if it gives none, or in another form."""
    try:
        return _Usage.model_validate(usage)
    except ValidationError:
        return _Usage()
