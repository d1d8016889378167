"""The judges of one evaluation, as the run file names them."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.endpoints import JUDGE_ENDPOINT
from dynalign_contract.errors import BadConfigError
from dynalign_contract.metrics import EvaluateMetrics, MetricValues
from dynalign_contract.settings import EvaluationJudge, WinRateMethod
from dynalign_trainer.endpoints.budget import share_of
from dynalign_trainer.endpoints.client import Endpoint, open_endpoint
from dynalign_trainer.endpoints.endpoint_model import EndpointModel
from dynalign_trainer.endpoints.journal import JOURNAL_FILE, Journal
from dynalign_trainer.evaluate.comparing import KnownRewards, Pair, PairJudge, compare_by
from dynalign_trainer.evaluate.statistics import Comparison
from dynalign_trainer.models.chat_model import ChatModel, Usage
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.progress import Watch

log = logging.getLogger("dynalign.evaluate")


def open_judge_endpoint(context: StageContext[EvaluateParams], environment: Mapping[str, str]) -> Endpoint | None:
    """The endpoint of the judge, if one is configured. Raises BadConfigError when it, or its key, is missing."""
    settings = context.params.evaluation.win_rate
    if EvaluationJudge.ENDPOINT not in settings.judges:
        return None
    if settings.endpoint is None:
        raise BadConfigError(
            f"{JUDGE_ENDPOINT.field} is missing with Endpoint among the judges; give it a url and a model."
        )
    journal, useful = Journal(context.folder / JOURNAL_FILE), context.telemetry.useful.span
    own = share_of(settings.endpoint, context.config.shards)
    return open_endpoint(JUDGE_ENDPOINT, own, environment, journal, useful=useful)


def build_judges(
    context: StageContext[EvaluateParams], engine: Engine, endpoint: Endpoint | None, known: KnownRewards
) -> dict[EvaluationJudge, PairJudge]:
    """Judges in the configured order. `endpoint` is the result of `open_judge_endpoint`.

    `known` are rewards that the base model has given as a judge that is the same in every iteration
    (`HeldOut.known_rewards`): what it is asked with does not depend on the iteration either.
    """
    params = context.params
    settings = params.evaluation.win_rate

    def build(model: ChatModel) -> PairJudge:
        return compare_by(model, params.objective, settings, params.judging, seed=context.seed)

    def build_judge(judge: EvaluationJudge) -> PairJudge:
        match judge:
            case EvaluationJudge.BASE:
                is_fixed = settings.method is WinRateMethod.POINTWISE
                seed = context.run_seed if is_fixed else context.seed
                base = EngineModel(engine, Policy())
                return compare_by(base, params.objective, settings, params.judging, seed=seed, known=known)
            case EvaluationJudge.LIVE:
                return build(EngineModel(engine, params.policy))
            case EvaluationJudge.ENDPOINT:
                if endpoint is None:
                    raise ValueError("Endpoint is among the judges, but no endpoint was opened")
                model = EndpointModel(endpoint, Window(engine.chat, engine.max_length))
                return BudgetedJudge(build(model), model, settings.method, is_share=context.config.is_joined)

    return {judge: build_judge(judge) for judge in settings.judges}


@dataclass(frozen=True)
class BudgetedJudge:
    """A judge that may leave pairs without an answer: reports it, and raises when too few pairs are left."""

    judge: PairJudge
    model: ChatModel
    method: WinRateMethod
    is_share: bool = False
    """The pairs are those of one shard: whether too few are left is seen when all shares are joined."""

    @property
    def version(self) -> str:
        """The judge's version."""
        return self.judge.version

    def compare(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Comparison]:
        """Compare with the judge. Raises BadConfigError, saying why, when fewer than half of the pairs were judged."""
        comparisons = self.judge.compare(pairs, watch)
        judged = _count_judged(comparisons)
        if not self.is_share:
            refuse_few(self.version, comparisons, self._reason())
        if judged < len(comparisons):
            log.warning(
                "%s judged %d of %d pairs of answers: %s", self.version, judged, len(comparisons), self._reason()
            )
        return comparisons

    def _reason(self) -> str:
        """Why pairs were not judged, and what to do, as a clause."""
        wanted = {WinRateMethod.PAIRWISE: "the letter A or B", WinRateMethod.POINTWISE: "a digit"}
        return self.model.exhausted_budget() or (
            f"the other replies do not hold {wanted[self.method]}; in {JUDGE_ENDPOINT.field}.model name a "
            f"model that replies with it, or raise {JUDGE_ENDPOINT.field}.thoughtTokens for one that reasons for longer"
        )


def refuse_few(judge: str, comparisons: Sequence[Comparison], reason: str) -> None:
    """Raise BadConfigError when fewer than half of the pairs were judged; `reason` is a clause that says why."""
    judged = _count_judged(comparisons)
    if 2 * judged < len(comparisons):
        raise BadConfigError(
            f"{judge} could judge only {judged} of {len(comparisons)} pairs of answers, fewer than half: "
            f"{reason}, or take Endpoint out of evaluation.winRate.judges."
        )


def _count_judged(comparisons: Sequence[Comparison]) -> int:
    return sum(not math.isnan(comparison.outcome) for comparison in comparisons)


def measure_spending(usages: Sequence[Usage]) -> MetricValues[EvaluateParams]:
    """Metrics of the judges' endpoints: requests and tokens; none without an endpoint."""
    if not usages:
        return {}
    return {
        EvaluateMetrics.judge_requests: sum(usage.requests for usage in usages),
        EvaluateMetrics.judge_tokens: sum(usage.tokens for usage in usages),
    }
