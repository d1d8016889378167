"""A model behind an OpenAI-compatible server, as a ChatModel."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

from dynalign_contract.endpoints import EndpointSettings, EndpointUse
from dynalign_trainer.endpoints.client import Endpoint, open_endpoint
from dynalign_trainer.endpoints.completions import ChatRequest
from dynalign_trainer.endpoints.journal import Journal
from dynalign_trainer.models.chat_model import ChatTurn, Completion, Sampling, Usage
from dynalign_trainer.models.choices import Choices
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.progress import Watch, part_of
from dynalign_trainer.runtime.useful_time import Useful

_BEGIN: Final = "Begin your answer with exactly these words and go on from them: "
_FIRST_TOKENS: Final = 8
"""Room for a character with a word before it."""
LONGEST_REPLY: Final = 64
"""Room, in tokens, that the second try gives an answer."""
_PATIENCE: Final = 16
"""Minimum of `judge_patience`."""
_FIRST_TRY: Final = 0.95
"""Share of the progress that is over when only the second tries are left."""


@dataclass
class EndpointModel:
    """A model of a server that begins the answer's turn itself, so that openings and choices are asked for in words.

    The model's own context window is not known. Questions are cut to the window of the run's model, by the run's
    tokenizer, so that all judges of an evaluation read the same beginnings of answers that are too long. A server may
    ignore the seeds.
    """

    endpoint: Endpoint
    window: Window
    """The run's own."""

    @property
    def version(self) -> str:
        """`endpoint:` and the model's name at the server."""
        return self.endpoint.settings.version

    @property
    def usage(self) -> Usage:
        """Requests and tokens that the endpoint has counted."""
        return self.endpoint.usage

    @property
    def takes_prefill(self) -> bool:
        """False: the server begins the turn."""
        return False

    def write(
        self, turns: Sequence[ChatTurn], sampling: Sampling, *, seeds: Sequence[int], watch: Watch | None
    ) -> list[Completion | None]:
        """One chat completion for each turn. An answer that does not begin with the opening is taken as it is."""
        requests = [
            ChatRequest(
                message=f"{turn.message}\n\n{_BEGIN}{turn.opening}" if turn.opening else turn.message,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=seed,
            )
            for turn, seed in zip(turns, seeds, strict=True)
        ]
        replies = self.endpoint.complete(requests, watch)
        return [
            None if reply is None else split_opening(turn.opening, reply.text, finished=reply.finished)
            for turn, reply in zip(turns, replies, strict=True)
        ]

    def choose(self, turns: Sequence[ChatTurn], choices: Choices, watch: Watch | None) -> list[list[float]]:
        """Log-probabilities of the choices as the answer to each turn's message.

        They come from the server if it gives them; otherwise the character in the text has 0 and the others have -inf.
        A question whose answer holds none of the choices is asked once more. Raises as `Endpoint.complete` does.
        """
        if any(turn.written for turn in turns):
            raise ValueError("a server does not continue an answer that has been begun")
        questions = [turn.message for turn in turns]
        found = self._ask(
            [choices.instruct(q) for q in questions], choices, _FIRST_TOKENS, part_of(watch, 0.0, _FIRST_TRY)
        )
        failed = [i for i, masses in enumerate(found) if masses is None]
        insistent = [choices.insist(questions[i]) for i in failed]
        again = self._ask(insistent, choices, LONGEST_REPLY, part_of(watch, _FIRST_TRY, 1.0))
        for i, masses in zip(failed, again, strict=True):
            found[i] = masses
        return [_logarithms(masses, len(choices.answers)) for masses in found]

    def check_choices(self, choices: Choices, lead: str) -> None:
        """Return: the choices are read from the answer's text, whatever the tokens."""

    def length(self, turn: ChatTurn, choices: Choices) -> int:
        """Tokens of the question in its longest wording and of the longest answer to it."""
        return self.window.length([{"role": "user", "content": choices.insist(turn.message)}]) + LONGEST_REPLY

    def forget(self) -> None:
        """Return: a server's caches are its own."""

    def exhausted_budget(self) -> str | None:
        """The endpoint's exhausted budget, if any."""
        return self.endpoint.budget.exhausted_message()

    def _ask(
        self, messages: Sequence[str], choices: Choices, max_tokens: int, watch: Watch | None
    ) -> list[tuple[float, ...] | None]:
        requests = [
            ChatRequest(message, 0.0, 1.0, max_tokens, seed=0, choices=choices.answers, logprobs=True)
            for message in messages
        ]
        return [None if reply is None else reply.choices for reply in self.endpoint.complete(requests, watch)]


def open_model(
    use: EndpointUse,
    settings: EndpointSettings,
    environment: Mapping[str, str],
    journal: Journal,
    window: Window,
    *,
    useful: Useful = nullcontext,
) -> EndpointModel:
    """The model of an endpoint. Raises BadConfigError as `open_endpoint` does."""
    return EndpointModel(open_endpoint(use, settings, environment, journal, useful=useful), window)


def judge_patience(settings: EndpointSettings) -> int:
    """Requests in a row that a judge's server may fail to answer before it counts as failed as a whole."""
    return max(_PATIENCE, 2 * settings.concurrency)


def split_opening(opening: str, text: str, *, finished: bool) -> Completion:
    """What a server's answer adds to the requested opening; all of it if it does not begin with the opening."""
    stripped = text.lstrip(" \n\t\"'“*`")
    if opening and stripped.startswith(opening):
        return Completion(opening, stripped[len(opening) :], finished)
    return Completion("", text, finished)


def _logarithms(masses: tuple[float, ...] | None, count: int) -> list[float]:
    if masses is None:
        return [math.nan] * count
    return [math.log(mass) if mass > 0 else -math.inf for mass in masses]
