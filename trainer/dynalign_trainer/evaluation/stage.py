"""evaluate: does the policy answer held-out prompts better than the base model, and better than before?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.layout import ANSWERS_FILE, CAPABILITY_FILE, COMPARISONS_FILE, HELD_OUT_FILE
from dynalign_contract.records import COMPARISON, Row, write_rows
from dynalign_contract.settings import EvaluationJudge, WinRateMethod
from dynalign_trainer.context import StageContext, StageOutput
from dynalign_trainer.engine import Engine, Watch, start_engine
from dynalign_trainer.evaluation import statistics
from dynalign_trainer.evaluation.answers import keep_or_sample, read_held_out, sample_answers
from dynalign_trainer.evaluation.capability import Examination, Outcome
from dynalign_trainer.evaluation.comparing import Comparer, Pair
from dynalign_trainer.evaluation.progress import Progress
from dynalign_trainer.evaluation.statistics import Duel

BASE: Final = "base"
PREVIOUS: Final = "previous"


@dataclass(frozen=True)
class Contest:
    """One judge's comparisons of the policy with one opponent, a duel for each held-out prompt."""

    opponent: str
    """`base` or `previous`."""
    judge: EvaluationJudge
    judge_version: str
    duels: list[Duel]


def run(context: StageContext[EvaluateParams]) -> StageOutput:
    """Write answers, comparisons and scores of tasks; report win rates and capability.

    A regression is reported, what follows is the planner's choice. Raises BadInputError when there are no held-out
    prompts, one does not fit into the context window, or a task cannot be loaded.
    """
    params = context.params
    prompts = read_held_out(context.input("heldout") / HELD_OUT_FILE)
    policies = (Policy(), params.previous, params.policy)
    opponents = {BASE: Policy()} | ({PREVIOUS: params.previous} if params.previous.version != BASE else {})
    judges = _judges(params)
    engine = start_engine(context, [policy for policy in policies if policy.adapter is not None])
    examination = Examination(context)
    versions = len({policy.version for policy in policies})
    units = len(prompts) * (versions + len(judges) * len(opponents)) + examination.units
    progress = Progress(context, units)
    max_tokens = params.evaluation.win_rate.max_tokens or params.max_tokens
    answers = keep_or_sample(
        context.folder / ANSWERS_FILE,
        prompts,
        policies,
        lambda policy: sample_answers(
            engine, prompts, policy, max_tokens=max_tokens, watch=progress.begin(len(prompts))
        ),
    )
    contests = [
        _contest(context, engine, answers, judge=judge, opponent=opponent, watch=progress.begin(len(prompts)))
        for judge in judges.items()
        for opponent in opponents.items()
    ]
    rows = [row for contest in contests for row in _comparison_rows(contest, prompts, params)]
    write_rows(context.folder / COMPARISONS_FILE, rows, COMPARISON)
    capability = examination.take(engine, progress)
    examined = {CAPABILITY_FILE: capability.rows} if capability.rows else {}
    return StageOutput(
        files={ANSWERS_FILE: len(prompts) * versions, COMPARISONS_FILE: len(rows), **examined},
        metrics=_measure(context, contests, answers, capability),
    )


def _judges(params: EvaluateParams) -> dict[EvaluationJudge, Policy]:
    """Judges in the configured order, each once."""
    weights = {EvaluationJudge.BASE: Policy(), EvaluationJudge.LIVE: params.policy}
    return {judge: weights[judge] for judge in params.evaluation.win_rate.judges}


def _contest(
    context: StageContext[EvaluateParams],
    engine: Engine,
    answers: Mapping[str, Sequence[Row]],
    *,
    judge: tuple[EvaluationJudge, Policy],
    opponent: tuple[str, Policy],
    watch: Watch,
) -> Contest:
    params = context.params
    settings = params.evaluation.win_rate
    comparer = Comparer(
        engine,
        params.objective,
        params.judging,
        policy=judge[1],
        tie_margin=settings.tie_margin,
        seed=context.seed,
    )
    pairs = [
        Pair(candidate, other)
        for candidate, other in zip(answers[params.policy.version], answers[opponent[1].version], strict=True)
    ]
    match settings.method:
        case WinRateMethod.PAIRWISE:
            duels = comparer.compare_pairwise(pairs, watch)
        case WinRateMethod.POINTWISE:
            duels = comparer.compare_pointwise(pairs, watch)
    return Contest(opponent[0], judge[0], judge[1].version, duels)


def _comparison_rows(contest: Contest, prompts: Sequence[Row], params: EvaluateParams) -> list[Row]:
    return [
        {
            "prompt_id": prompt["prompt_id"],
            "opponent": contest.opponent,
            "judge": contest.judge_version,
            "method": params.evaluation.win_rate.method.value,
            "first": duel.first,
            "second": duel.second,
            "outcome": duel.outcome,
            "length_difference": duel.length_difference,
        }
        for prompt, duel in zip(prompts, contest.duels, strict=True)
    ]


def _measure(
    context: StageContext[EvaluateParams],
    contests: Sequence[Contest],
    answers: Mapping[str, Sequence[Row]],
    capability: Outcome,
) -> dict[str, float | None]:
    """The stage's metrics, the most important first; win rates are against base unless the name says otherwise."""
    params = context.params
    settings = params.evaluation.win_rate
    found = {(contest.opponent, contest.judge): contest.duels for contest in contests}
    headline = settings.judges[0]
    duels = found[BASE, headline]
    previous = found.get((PREVIOUS, headline), duels)
    live = found.get((BASE, EvaluationJudge.LIVE))
    rate = statistics.win_rate(duels)
    interval = statistics.bootstrap_interval(
        duels, confidence=settings.confidence, resamples=settings.resamples, seed=context.seed("bootstrap")
    )
    return {
        "win_rate": rate,
        "win_rate_low": interval.low,
        "win_rate_high": interval.high,
        "win_rate_lc": statistics.length_controlled_win_rate(duels),
        "win_rate_previous": statistics.win_rate(previous),
        "preference": statistics.mean_preference(duels),
        "win_rate_live": statistics.win_rate(live) if live is not None else None,
        "ties": statistics.tie_share(duels),
        "order_flips": statistics.order_flips(duels),
        "first_position": statistics.first_position(duels),
        "regressed": float(interval.high < 0.5 or capability.regressed),
        "mean_length": _mean_length(answers[params.policy.version]),
        "mean_length_base": _mean_length(answers[Policy().version]),
        "prompts": len(duels),
        **capability.metrics,
    }


def _mean_length(rows: Sequence[Row]) -> float:
    """Mean length of ANSWER rows in tokens."""
    return sum(len(row["completion_ids"]) for row in rows) / len(rows)
