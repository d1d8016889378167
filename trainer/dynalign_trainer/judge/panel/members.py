"""The judges of a panel, and the models that they are."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from dynalign_contract.config import BASE_POLICY, JudgeParams, Policy
from dynalign_contract.errors import BadConfigError
from dynalign_contract.inputs import Input
from dynalign_contract.settings import JudgeSettings, PanelJudge, judge_endpoint
from dynalign_trainer.endpoints.budget import share_of
from dynalign_trainer.endpoints.endpoint_model import EndpointModel, judge_patience, open_model
from dynalign_trainer.endpoints.journal import JOURNAL_FILE, Journal
from dynalign_trainer.models.chat_model import ChatModel
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.models.window import read_window
from dynalign_trainer.runtime.context import StageContext


@dataclass(frozen=True)
class Member:
    """A judge of the panel."""

    settings: JudgeSettings
    model: ChatModel

    @property
    def name(self) -> str:
        """The judge's name in the run file."""
        return self.settings.name

    @property
    def is_base(self) -> bool:
        """Whether it is the base model."""
        return self.model.version == BASE_POLICY

    @property
    def is_outside(self) -> bool:
        """Whether it is a model behind an endpoint."""
        return self.settings.judge is PanelJudge.ENDPOINT


@dataclass
class Panel:
    """Opens the judges one after the other: models behind endpoints first, which need no engine.

    The judges that are the run's own model share one engine, which exchanges their weights.
    """

    context: StageContext[JudgeParams]
    base: ChatModel | None = None
    """The base model, once the engine is started; None before that, and where no judge is the run's own model."""
    opened: list[Member] = field(default_factory=list)
    """Judges so far, in the order of opening."""

    def members(self) -> Iterator[Member]:
        """Every judge, opened when its turn comes. Raises BadConfigError as `open_model`, or as `start_engine` does."""
        outside = list(self._open_endpoints())
        yield from self._open(outside)
        yield from self._open(self._start_engine())

    def _open(self, members: list[Member]) -> Iterator[Member]:
        for member in members:
            self.opened.append(member)
            yield member

    def _open_endpoints(self) -> Iterator[Member]:
        judges = self.context.params.judging.judges
        outside = {i: judge for i, judge in enumerate(judges) if judge.judge is PanelJudge.ENDPOINT}
        if not outside:
            return
        config = self.context.config
        window = read_window(self.context.input(Input.MODEL), config.engine.max_length, config.chat)
        journal = Journal(self.context.folder / JOURNAL_FILE)
        for index, judge in outside.items():
            use = judge_endpoint(index, judge)
            if judge.endpoint is None:
                raise BadConfigError(f"{use.field} is missing with judge: Endpoint; give it a url and a model.")
            settings, useful = share_of(judge.endpoint, config.shards), self.context.telemetry.useful.span
            model: EndpointModel = open_model(use, settings, os.environ, journal, window, useful=useful)
            model.endpoint.patience = judge_patience(judge.endpoint)
            yield Member(judge, model)

    def _start_engine(self) -> list[Member]:
        params = self.context.params
        own = [judge for judge in params.judging.judges if judge.judge is not PanelJudge.ENDPOINT]
        if not own:
            return []
        policies = {policy.version: policy for policy in params.policies.values()}
        engine = start_engine(self.context, list(policies.values()), only_reads=params.judging.only_reads)
        self.base = EngineModel(engine, Policy())
        return [Member(judge, EngineModel(engine, params.policies[judge.name])) for judge in own]
