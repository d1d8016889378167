"""What a run has reached: one table of few columns, and in a sentence whether it worked. Nothing is read here."""

from collections.abc import Iterable

from rich.table import Table

from dynalign_contract.estimate import Estimate
from dynalign_contract.metrics import EvaluateMetrics, JudgeMetrics
from dynalign_operator.api.status import AlignmentRunStatus, IterationStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.cli.tables import index_of, plain_table
from dynalign_operator.planning.iteration_numbers import numbers_of

_NONE = "-"
_CHANCE = 0.5
"""Win rate of answers that are as good as the base model's."""


def summary_table(status: AlignmentRunStatus) -> Table:
    """A line for each iteration: how it compares with the base model on held-out prompts and in general ability."""
    table = plain_table(
        "iteration",
        "wins against\nthe base model",
        "held-out reward,\nchange against base",
        "general ability,\nchange against base",
    )
    for iteration in status.iterations:
        reward = EvaluateMetrics.held_out_reward_delta.join(numbers_of(iteration))
        table.add_row(
            index_of(iteration, status),
            _NONE if iteration.win_rate is None else _percent(iteration.win_rate),
            _change(reward),
            _change(iteration.capability_delta),
        )
    return table


def legend(status: AlignmentRunStatus) -> str:
    """What marks and brackets of the summary table mean."""
    best = "* the best iteration; " if status.best and status.best.iteration is not None else ""
    return f"{best}in brackets: confidence intervals. Everything else: --wide"


def judged_iteration(status: AlignmentRunStatus) -> IterationStatus | None:
    """The iteration that the verdict is about: the best one, else the last that was evaluated; None without any."""
    evaluated = [iteration for iteration in status.iterations if iteration.win_rate is not None]
    best = None if status.best is None else status.best.iteration
    return next((entry for entry in evaluated if entry.index == best), evaluated[-1] if evaluated else None)


def verdict(run: AlignmentRun) -> str:
    """Whether the run has worked, in one sentence with the win rate, the capability and their intervals."""
    entry = judged_iteration(run.status)
    if entry is None or entry.win_rate is None:
        return "Did it work? Not known: no iteration has been evaluated."
    rate, confidence = entry.win_rate, run.spec.evaluation.win_rate.confidence
    count = numbers_of(entry).get(EvaluateMetrics.prompts)
    prompts = "held-out prompts" if count is None else f"{count:.0f} held-out prompts"
    wins = (
        f"on {prompts} the answers of iteration {entry.index} win {_share(rate.value)} of the comparisons with the "
        f"base model's{_interval(rate, confidence)}"
    )
    return f"Did it work? {_answer(entry, rate)}: {wins}{_doubt(rate)}, and {_ability(entry.capability_delta)}."


def judge_warning(status: AlignmentRunStatus) -> str | None:
    """A sentence where the judge of an iteration was found unfit; None otherwise."""
    unfit = _listed(entry.index for entry in status.iterations if numbers_of(entry).get(JudgeMetrics.unfit))
    return f"The judge was found unfit in iteration {unfit}: do not trust its rewards (--wide)." if unfit else None


def _answer(entry: IterationStatus, rate: Estimate) -> str:
    if entry.regressed or rate.is_below(_CHANCE):
        return "No"
    return "Yes" if rate.low is not None and rate.low > _CHANCE else "Not shown"


def _doubt(rate: Estimate) -> str:
    is_open = rate.low is None or rate.high is None or rate.low <= _CHANCE <= rate.high
    return ", which may be chance" if is_open else ""


def _ability(delta: Estimate | None) -> str:
    if delta is None:
        return "general ability was not measured"
    change = delta.text("+.3f")
    if delta.is_below(0.0):
        return f"general ability fell: {change}"
    if delta.low is not None and delta.low > 0:
        return f"general ability rose: {change}"
    return f"no change of general ability is shown: {change}"


def _interval(rate: Estimate, confidence: float) -> str:
    if rate.low is None or rate.high is None:
        return ""
    return f" ({confidence:.0%} interval {_share(rate.low)} to {_share(rate.high)})"


def _percent(rate: Estimate) -> str:
    """`73% (56-90%)`."""
    ends = "" if rate.low is None or rate.high is None else f" ({100 * rate.low:.0f}-{_share(rate.high)})"
    return _share(rate.value) + ends


def _share(value: float) -> str:
    return f"{value:.0%}"


def _change(delta: Estimate | None) -> str:
    return _NONE if delta is None else delta.text("+.3f")


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
