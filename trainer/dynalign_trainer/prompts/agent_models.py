"""The models behind the agents: the engine with one policy's weights, or a model behind an endpoint."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from dynalign_contract.agents import AgentModel, AgentSettings, Role, agent_endpoint
from dynalign_contract.config import Policy
from dynalign_contract.errors import BadConfigError
from dynalign_trainer.endpoints.endpoint_model import open_model
from dynalign_trainer.endpoints.journal import Journal
from dynalign_trainer.models.chat_model import ChatModel
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.models.window import Window
from dynalign_trainer.prompts.shared_model import SharedModel, Sharing
from dynalign_trainer.runtime.useful_time import Useful


@dataclass(frozen=True)
class ModelSources:
    """What the agents' models are made of."""

    engine: Engine | None
    """None if every agent's model is behind an endpoint."""
    policy: Policy
    window: Window
    environment: Mapping[str, str]
    """Holds the endpoints' keys."""
    journal: Journal
    sharing: Sharing
    useful: Useful = nullcontext
    """Makes a context for each call to an endpoint, in which the stage's time is useful."""


class LazyModels(Mapping[Role, ChatModel]):
    """The models of all agents, opened when the first of them is used: supplied prompts need no engine."""

    def __init__(self, open_models: Callable[[], Mapping[Role, ChatModel]]) -> None:
        self._open = open_models
        self._models: Mapping[Role, ChatModel] | None = None

    def __getitem__(self, role: Role) -> ChatModel:
        return self._opened()[role]

    def __iter__(self) -> Iterator[Role]:
        return iter(self._opened())

    def __len__(self) -> int:
        return len(self._opened())

    def _opened(self) -> Mapping[Role, ChatModel]:
        if self._models is None:
            self._models = self._open()
        return self._models


def resolve_agent_model(role: Role, settings: AgentSettings, sources: ModelSources) -> ChatModel:
    """The model of an agent. Raises BadConfigError when the settings name none that is available."""
    if settings.model is AgentModel.ENDPOINT:
        if settings.endpoint is None:
            raise BadConfigError(
                f"prompts.agents.{role}.endpoint is missing with model: Endpoint; give it url and model."
            )
        use = agent_endpoint(role)
        return open_model(
            use, settings.endpoint, sources.environment, sources.journal, sources.window, useful=sources.useful
        )
    if sources.engine is None:
        raise ValueError(f"the {role}'s model is {settings.model}, but no engine was started")
    policy = sources.policy if settings.model is AgentModel.POLICY else Policy()
    model = EngineModel(sources.engine, policy)
    return SharedModel(model, sources.sharing, is_exact=sources.engine.slots is None)
