"""The judges of one evaluation, as the run file names them."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.endpoints import JUDGE_ENDPOINT
from dynalign_contract.errors import BadConfigError
from dynalign_contract.metrics import EvaluateMetrics, MetricValues
from dynalign_contract.settings import EvaluationJudge, WinRateMethod, WinRateSettings
from dynalign_trainer.endpoints.client import Endpoint, open_endpoint
from dynalign_trainer.endpoints.journal import JOURNAL_FILE, Journal
from dynalign_trainer.evaluate.comparing import Comparer, Pair, PairJudge
from dynalign_trainer.evaluate.judge_models import EndpointJudge, EngineJudge, JudgeModel
from dynalign_trainer.evaluate.statistics import Duel
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.progress import Watch

log = logging.getLogger("dynalign.evaluate")


def open_judge_endpoint(context: StageContext[EvaluateParams], environment: Mapping[str, str]) -> Endpoint | None:
    """The endpoint of the judge; None where none judges. Raises BadConfigError when it, or its key, is missing."""
    settings = context.params.evaluation.win_rate
    if EvaluationJudge.ENDPOINT not in settings.judges:
        return None
    if settings.endpoint is None:
        raise BadConfigError(
            f"{JUDGE_ENDPOINT.field} is missing with Endpoint among the judges; give it a url and a model."
        )
    return open_endpoint(JUDGE_ENDPOINT, settings.endpoint, environment, Journal(context.folder / JOURNAL_FILE))


def build_judges(
    context: StageContext[EvaluateParams], engine: Engine, endpoint: Endpoint | None
) -> dict[EvaluationJudge, PairJudge]:
    """Judges in the configured order. `endpoint` is what `open_judge_endpoint` gave."""
    params = context.params
    settings = params.evaluation.win_rate
    window = Window(engine.tokenizer, engine.max_length)

    def compare_by(model: JudgeModel) -> Comparer:
        return Comparer(
            model,
            params.objective,
            settings,
            min_mass=params.judging.min_mass,
            window=window,
            delimiter_seed=context.seed("delimiters"),
        )

    def play(policy: Policy) -> PairJudge:
        return compare_by(EngineJudge(engine, params.objective, params.judging, policy, context.seed))

    judges = {EvaluationJudge.BASE: play(Policy()), EvaluationJudge.LIVE: play(params.policy)}
    if endpoint is not None:
        model = EndpointJudge(endpoint, params.objective, params.judging, window, context.seed)
        judges[EvaluationJudge.ENDPOINT] = PaidJudge(compare_by(model), endpoint, settings)
    return {judge: judges[judge] for judge in settings.judges}


@dataclass(frozen=True)
class PaidJudge:
    """A judge whose answers may run out, or never come: says so, and refuses when too few pairs are left."""

    judge: PairJudge
    endpoint: Endpoint
    settings: WinRateSettings

    @property
    def version(self) -> str:
        """The judge's own."""
        return self.judge.version

    def compare(self, pairs: Sequence[Pair], watch: Watch | None) -> list[Duel]:
        """As the judge does. Raises BadConfigError, saying why, when fewer than half of the pairs were judged."""
        duels = self.judge.compare(pairs, watch)
        judged = sum(not math.isnan(duel.outcome) for duel in duels)
        if 2 * judged < len(duels):
            raise BadConfigError(
                f"{self.version} could judge only {judged} of {len(duels)} pairs of answers, fewer than half: "
                f"{self._why()}, or take Endpoint out of evaluation.winRate.judges."
            )
        if judged < len(duels):
            log.warning("%s judged %d of %d pairs of answers: %s", self.version, judged, len(duels), self._why())
        return duels

    def _why(self) -> str:
        """What kept pairs from being judged, and what to do, as a clause."""
        wanted = {WinRateMethod.PAIRWISE: "the letter A or B", WinRateMethod.POINTWISE: "a digit"}
        return self.endpoint.purse.used_up() or (
            f"the other replies do not hold {wanted[self.settings.method]}; in {JUDGE_ENDPOINT.field}.model name a "
            f"model that replies with it, or raise {JUDGE_ENDPOINT.field}.thoughtTokens for one that reasons for longer"
        )


def measure_spending(endpoint: Endpoint | None) -> MetricValues[EvaluateParams]:
    """What the judge's endpoint was asked and has read and written; nothing where there is none."""
    if endpoint is None:
        return {}
    spending = endpoint.spending
    return {EvaluateMetrics.judge_requests: spending.requests, EvaluateMetrics.judge_tokens: spending.tokens}
