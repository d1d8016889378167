"""The agents that write the training set, and which model plays which role."""

from enum import StrEnum

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.endpoints import EndpointSettings, EndpointUse
from dynalign_contract.stages import Stage


class Role(StrEnum):
    """A part in the writing of prompts that a language model plays."""

    AUTHOR = "author"
    CRITIC = "critic"
    REVISER = "reviser"


def agent_endpoint(role: Role) -> EndpointUse:
    """The endpoint that may play this role."""
    return EndpointUse(
        field=f"prompts.agents.{role}.endpoint",
        stage=Stage.PROMPTS,
        variable=f"DYNALIGN_{role.value.upper()}_API_KEY",
        lengths="the agent's maxTokens",
    )


class AgentModel(StrEnum):
    """The model that plays an agent's role."""

    POLICY = "Policy"
    """The policy as it is at the start of the iteration."""
    BASE = "Base"
    ENDPOINT = "Endpoint"
    """A model behind an OpenAI-compatible server, as `endpoint` says."""


class AgentSettings(Model):
    """Which model plays an agent's role."""

    model: AgentModel = AgentModel.POLICY
    endpoint: EndpointSettings | None = None
    """For `model: Endpoint`: the server."""


class AuthorSettings(AgentSettings):
    """The scenario author: writes a task or dilemma from a sampled seed."""

    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature of the author; higher is more varied."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus of the author's sampling: the smallest set of tokens with this probability is drawn from."""
    max_tokens: int = Field(default=160, ge=8, le=4096)
    """Maximum length of a draft, in tokens."""
    drafts_per_prompt: float = Field(default=2.0, ge=1, le=32)
    """Drafts written for each prompt that is wanted; critic and curator choose among them."""


class CriticSettings(AgentSettings):
    """The critic: scores drafts by the expected digit; the best are kept."""

    model: AgentModel = AgentModel.BASE
    min_score: float = Field(default=0.0, ge=0, le=9)
    """Drafts below this score, 0 to 9, are dropped even when too few remain."""


class ReviserSettings(AgentSettings):
    """The reviser: rewrites drafts with a middling score; the critic then scores them again."""

    revise_from: float = Field(default=3.0, ge=0, le=9)
    """Drafts below this score, 0 to 9, are dropped without being rewritten."""
    revise_below: float = Field(default=6.0, ge=0, le=9)
    """Drafts of at least this score are kept as they are."""
    temperature: float = Field(default=0.7, gt=0, le=2)
    """Sampling temperature of the reviser."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus of the reviser's sampling."""
    max_tokens: int = Field(default=160, ge=8, le=4096)
    """Maximum length of a rewritten prompt, in tokens."""


class AgentsSettings(Model):
    """The agents that write the training set."""

    author: AuthorSettings = AuthorSettings()
    critic: CriticSettings = CriticSettings()
    reviser: ReviserSettings | None = None
    """Needs an objective with a critic and a reviser. Default: nothing is rewritten."""

    @property
    def by_role(self) -> dict[Role, AgentSettings]:
        """The agents that take part."""
        always: dict[Role, AgentSettings] = {Role.AUTHOR: self.author, Role.CRITIC: self.critic}
        return always | ({Role.REVISER: self.reviser} if self.reviser is not None else {})

    @property
    def models(self) -> frozenset[AgentModel]:
        """What plays the agents that take part."""
        return frozenset(agent.model for agent in self.by_role.values())

    @property
    def need_engine(self) -> bool:
        """Whether the run's own model plays any of them."""
        return self.models != {AgentModel.ENDPOINT}
