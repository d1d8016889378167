"""The models that play the agents: the engine with one set of weights, or a model behind an endpoint."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from dynalign_contract.agents import AgentModel, AgentSettings, Role, agent_endpoint
from dynalign_contract.config import Policy
from dynalign_contract.errors import BadConfigError
from dynalign_trainer.endpoints.budget import Spending
from dynalign_trainer.endpoints.choosing import DIGIT, ask_choices
from dynalign_trainer.endpoints.client import Endpoint, open_endpoint
from dynalign_trainer.endpoints.completions import ChatRequest
from dynalign_trainer.endpoints.journal import Journal
from dynalign_trainer.models.choices import digit_tokens, expected_digit
from dynalign_trainer.models.engine import Engine, Sampling
from dynalign_trainer.runtime.progress import Watch

_BEGIN: Final = "Begin your answer with exactly these words and go on from them: "


@dataclass(frozen=True)
class Ask:
    """What an agent is asked: a user's turn, and how its answer begins."""

    message: str
    prefill: str = ""
    """Beginning of the answer that is no part of what is wanted."""
    opening: str = ""
    """Beginning of what is wanted, right after the prefill."""


@dataclass(frozen=True)
class Continuation:
    """What an agent made of an opening."""

    opening: str
    """The opening that the text goes on from; empty where the agent wrote a beginning of its own."""
    text: str
    finished: bool
    """It ended by itself, not at its greatest length."""


class RoleModel(Protocol):
    """Writes and scores in the part of an agent. What it has spent is counted."""

    @property
    def version(self) -> str:
        """`base`, `iteration-003`, or `endpoint:` and the model's name."""
        ...

    @property
    def spending(self) -> Spending:
        """What has been spent so far."""
        ...

    def write(
        self, asks: Sequence[Ask], sampling: Sampling, *, seeds: Sequence[int], watch: Watch | None
    ) -> list[Continuation | None]:
        """One text for each, in order; None where a budget is used up."""
        ...

    def score(self, messages: Sequence[str], *, prefill: str, watch: Watch | None) -> list[float]:
        """The digit that the model gives each, 0 to 9, by expectation where it can be had; NaN where it gives none."""
        ...

    def used_up(self) -> str | None:
        """Which budget is used up and what to do, as a clause; None where none is."""
        ...


@dataclass
class EngineRole:
    """The engine playing a policy."""

    engine: Engine
    policy: Policy
    spending: Spending = field(default_factory=Spending)

    @property
    def version(self) -> str:
        """The policy's."""
        return self.policy.version

    def write(
        self, asks: Sequence[Ask], sampling: Sampling, *, seeds: Sequence[int], watch: Watch | None
    ) -> list[Continuation | None]:
        """Go on from the prefill and the opening of each."""
        prompts = [
            self.engine.chat_ids([{"role": "user", "content": ask.message}], ask.prefill + ask.opening) for ask in asks
        ]
        self.engine.forget_prefixes()
        groups = self.engine.sample(prompts, sampling, policy=self.policy, seeds=seeds, watch=watch)
        self._count(prompts, sum(len(sample.token_ids) for group in groups for sample in group))
        return [
            Continuation(ask.opening, sample.text, sample.finish_reason == "stop")
            for ask, (sample,) in zip(asks, groups, strict=True)
        ]

    def score(self, messages: Sequence[str], *, prefill: str, watch: Watch | None) -> list[float]:
        """The expected digit after the prefill."""
        prompts = [self.engine.chat_ids([{"role": "user", "content": message}], prefill) for message in messages]
        digits = digit_tokens(self.engine.tokenizer, prefill)
        self.engine.forget_prefixes()
        rows = self.engine.score_next(prompts, digits, policy=self.policy, watch=watch)
        self._count(prompts, len(prompts))
        return [expected_digit(row)[0] for row in rows]

    def used_up(self) -> str | None:
        """Never: the run's own engine has no budget."""
        return None

    def _count(self, prompts: Sequence[Sequence[int]], written: int) -> None:
        self.spending.requests += len(prompts)
        self.spending.tokens += sum(map(len, prompts)) + written


@dataclass
class EndpointRole:
    """A model behind an OpenAI-compatible server.

    Such servers begin an answer's turn themselves, so an opening is asked for in words; an answer that does not begin
    with it is taken as it is. Of the server's `seed` no more is expected than that it may be ignored.
    """

    endpoint: Endpoint

    @property
    def version(self) -> str:
        """The model's name at the server."""
        return self.endpoint.settings.version

    @property
    def spending(self) -> Spending:
        """What the endpoint has counted."""
        return self.endpoint.spending

    def write(
        self, asks: Sequence[Ask], sampling: Sampling, *, seeds: Sequence[int], watch: Watch | None
    ) -> list[Continuation | None]:
        """One chat completion for each."""
        requests = [
            ChatRequest(
                message=f"{ask.message}\n\n{_BEGIN}{ask.opening}" if ask.opening else ask.message,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=seed,
            )
            for ask, seed in zip(asks, seeds, strict=True)
        ]
        replies = self.endpoint.complete(requests, watch)
        return [
            None if reply is None else split_opening(ask.opening, reply.text, finished=reply.finished)
            for ask, reply in zip(asks, replies, strict=True)
        ]

    def score(self, messages: Sequence[str], *, prefill: str, watch: Watch | None) -> list[float]:
        """The expected digit where the server gives log-probabilities, else the digit in the text; asked twice."""
        del prefill  # the server begins the turn itself
        return [expected_digit(row)[0] for row in ask_choices(self.endpoint, messages, DIGIT, watch)]

    def used_up(self) -> str | None:
        """What the endpoint's purse says."""
        return self.endpoint.purse.used_up()


def split_opening(opening: str, text: str, *, finished: bool) -> Continuation:
    """What a server's answer adds to the opening that was asked for; all of it where it does not begin so."""
    stripped = text.lstrip(" \n\t\"'“*`")
    if opening and stripped.startswith(opening):
        return Continuation(opening, stripped[len(opening) :], finished)
    return Continuation("", text, finished)


@dataclass(frozen=True)
class Cast:
    """Where the models that play the roles come from."""

    engine: Engine | None
    """None where every role is played behind an endpoint."""
    policy: Policy
    environment: Mapping[str, str]
    """Holds the endpoints' keys."""
    journal: Journal


class LateCast(Mapping[Role, RoleModel]):
    """The models of all roles, had only when the first of them is asked for: supplied prompts need no engine."""

    def __init__(self, open_cast: Callable[[], Mapping[Role, RoleModel]]) -> None:
        self._open = open_cast
        self._cast: Mapping[Role, RoleModel] | None = None

    def __getitem__(self, role: Role) -> RoleModel:
        return self._opened()[role]

    def __iter__(self) -> Iterator[Role]:
        return iter(self._opened())

    def __len__(self) -> int:
        return len(self._opened())

    def _opened(self) -> Mapping[Role, RoleModel]:
        if self._cast is None:
            self._cast = self._open()
        return self._cast


def cast_role(role: Role, settings: AgentSettings, cast: Cast) -> RoleModel:
    """The model that plays a role. Raises BadConfigError when the settings name none that can be had."""
    if settings.model is AgentModel.ENDPOINT:
        if settings.endpoint is None:
            raise BadConfigError(
                f"prompts.agents.{role}.endpoint is missing with model: Endpoint; give it url and model."
            )
        return EndpointRole(open_endpoint(agent_endpoint(role), settings.endpoint, cast.environment, cast.journal))
    if cast.engine is None:
        raise ValueError(f"the {role} is played by {settings.model}, but no engine was started")
    return EngineRole(cast.engine, cast.policy if settings.model is AgentModel.POLICY else Policy())
