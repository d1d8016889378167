"""The judges of held-out rewards: the run's own judges, with weights that stay the same over all iterations.

`Live` and `Lagged` follow the policy, so a reward that rises may only show a judge that grew milder. Here the base
model takes their place; models behind endpoints are asked as in the judge stage (docs/method.md, "Held-out reward").
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dynalign_contract.config import BASE_POLICY, EvaluateParams, Policy
from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_contract.settings import Combine, JudgeSettings, JudgingSettings, PanelJudge, judge_endpoint
from dynalign_trainer.endpoints.budget import share_of
from dynalign_trainer.endpoints.endpoint_model import EndpointModel, judge_patience, open_model
from dynalign_trainer.endpoints.journal import JOURNAL_FILE, Journal
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.models.chat_model import ChatModel, Usage
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.scoring.combining import CombinationRule
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pointwise import PointwiseJudge

log = logging.getLogger("dynalign.evaluate")

_NOT_ASKED: Final = {"gates", "canaries", "penalties", "weight", "base_agreement_prompts", "noise"}
"""Settings of judging that change no reward by the judges."""


@dataclass(frozen=True)
class FixedJudge:
    """A model, and how it is asked."""

    model: ChatModel
    settings: JudgingSettings

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for judges that give equal rewards: of `Live` and `Base` in one panel only one is asked."""
        how = self.settings
        return id(self.model), how.method, how.votes, how.rationale_tokens


@dataclass
class FixedJudges:
    """All judges whose rewards count, by name."""

    params: EvaluateParams
    judges: Mapping[str, FixedJudge]
    rule: CombinationRule
    seed: Callable[..., int]
    """Makes a 31-bit seed from a salt, the same one in every iteration."""
    failures: list[str] = field(default_factory=list)
    """Why judges stopped answering."""

    @property
    def digest(self) -> str:
        """Digest of everything beside the answer that its reward depends on, 16 hexadecimal digits."""
        parts = {
            "objective": self.params.objective.model_dump(mode="json"),
            "judging": self.params.judging.model_dump(mode="json", exclude=_NOT_ASKED),
            "max_length": self.params.max_length,
            "seed": self.seed("delimiters"),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def usage(self) -> list[Usage]:
        """What the judges' endpoints have counted."""
        return [judge.model.usage for judge in self.judges.values() if isinstance(judge.model, EndpointModel)]

    def reward(self, candidates: Sequence[Candidate], watch: Watch | None) -> list[float]:
        """Combined rewards, 0 to 1, before verifiers and penalties, order kept; NaN where too few judges gave one.

        A judge that cannot answer, because its server fails or a prompt is too long for its window, gives none.
        """
        found: dict[tuple[object, ...], list[float]] = {}
        for judge in self.judges.values():
            if judge.key not in found:
                found[judge.key] = self._ask(judge, candidates, watch)
        named = {name: found[judge.key] for name, judge in self.judges.items()}
        return [self.rule.reward({name: given[i] for name, given in named.items()}) for i in range(len(candidates))]

    def _ask(self, judge: FixedJudge, candidates: Sequence[Candidate], watch: Watch | None) -> list[float]:
        try:
            pointwise = PointwiseJudge(judge.model, self.params.objective, judge.settings, seed=self.seed)
            return [score.reward for score in pointwise.score(candidates, watch)]
        except (EndpointError, BadInputError) as error:
            self.failures.append(str(error))
            return [math.nan] * len(candidates)


def open_fixed_judges(
    context: StageContext[EvaluateParams], engine: Engine, environment: Mapping[str, str]
) -> FixedJudges:
    """The judges of the run. Raises BadConfigError when the endpoint of one, or its key, is missing."""
    params = context.params
    judging, base = params.judging, EngineModel(engine, Policy())
    if not judging.judges:
        only = CombinationRule(Combine.MEAN, {BASE_POLICY: 1.0}, quorum=1)
        return FixedJudges(params, {BASE_POLICY: FixedJudge(base, judging)}, only, context.run_seed)
    counting = {i: judge for i, judge in enumerate(judging.judges) if judge.counts}
    weights = {judge.name: judge.weight for judge in counting.values()}
    judges = {
        judge.name: FixedJudge(
            _open_endpoint(context, engine, environment, index) if judge.judge is PanelJudge.ENDPOINT else base,
            judging.of(judge),
        )
        for index, judge in counting.items()
    }
    rule = CombinationRule(judging.combine, weights, judging.min_judges or max(len(weights), 1))
    return FixedJudges(params, judges, rule, context.run_seed)


def _open_endpoint(
    context: StageContext[EvaluateParams], engine: Engine, environment: Mapping[str, str], index: int
) -> EndpointModel:
    judge: JudgeSettings = context.params.judging.judges[index]
    use = judge_endpoint(index, judge)
    if judge.endpoint is None:
        raise BadConfigError(f"{use.field} is missing with judge: Endpoint; give it a url and a model.")
    window = Window(engine.chat, engine.max_length)
    journal, useful = Journal(context.folder / JOURNAL_FILE), context.telemetry.useful.span
    own = share_of(judge.endpoint, context.config.shards)
    model = open_model(use, own, environment, journal, window, useful=useful)
    model.endpoint.patience = judge_patience(judge.endpoint)
    return model
