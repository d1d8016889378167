"""What the numbers of a run say in words: the answers that stand at the top of a report."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from dynalign_contract.estimate import Estimate
from dynalign_contract.metrics import EvaluateMetrics, JudgeMetrics
from dynalign_report.facts import Numbers, ReportedRun

_CHANCE: Final = 0.5


class Tone(StrEnum):
    """How a finding is marked, by a word and a sign as well as by colour."""

    GOOD = "good"
    BAD = "bad"
    OPEN = "open"


@dataclass(frozen=True)
class Finding:
    """One measured answer to a question."""

    title: str
    value: str
    """The number with its interval."""
    sentence: str
    tone: Tone
    share: Estimate | None = None
    """The number itself where it is a share, for a picture of its interval on the scale from 0 to 1."""


def build_findings(run: ReportedRun) -> tuple[Finding, ...]:
    """Findings of the latest iteration that measured each; empty for a run that has measured nothing."""
    return tuple(_findings(run))


def _findings(run: ReportedRun) -> Iterator[Finding]:
    numbers = run.numbers
    for iteration, values in reversed(numbers.items()):
        if (estimate := EvaluateMetrics.win_rate.join(values)) is not None:
            yield _win_rate(iteration, estimate)
            break
    yield from _held_out_reward(numbers)
    for iteration, values in reversed(numbers.items()):
        if (estimate := EvaluateMetrics.capability_delta.join(values)) is not None:
            yield _capability(iteration, estimate)
            break
    for iteration, values in reversed(numbers.items()):
        if JudgeMetrics.canary_auc in values:
            yield _judge(iteration, values)
            break


def _win_rate(iteration: int, rate: Estimate) -> Finding:
    if rate.low is not None and rate.low > _CHANCE:
        tone, sentence = Tone.GOOD, "It beats the base model: the whole interval lies above one half."
    elif rate.is_below(_CHANCE):
        tone, sentence = Tone.BAD, "It loses against the base model: the whole interval lies below one half."
    elif rate.low is None:
        tone, sentence = Tone.OPEN, "There is no interval, so this may be chance."
    else:
        tone, sentence = Tone.OPEN, "Not shown to differ from the base model: the interval contains one half."
    return Finding(f"Held-out win rate, iteration {iteration}", rate.text(".2f"), sentence, tone, rate)


def _held_out_reward(numbers: dict[int, dict[Any, float]]) -> Iterator[Finding]:
    for iteration, values in reversed(numbers.items()):
        estimate = EvaluateMetrics.held_out_reward.join(values)
        if estimate is None:
            continue
        delta = EvaluateMetrics.held_out_reward_delta.join(values)
        tone, sentence = _direction(delta, "the reward of held-out answers")
        if delta is not None:
            sentence = f"Change {delta.text('+.3f')}. {sentence}"
        yield Finding(f"Held-out reward, iteration {iteration}", estimate.text(".3f"), sentence, tone)
        return


def _capability(iteration: int, change: Estimate) -> Finding:
    tone, sentence = _direction(change, "capability")
    return Finding(f"Capability, change, iteration {iteration}", change.text("+.3f"), sentence, tone)


def _direction(change: Estimate | None, what: str) -> tuple[Tone, str]:
    if change is None or change.low is None or change.high is None:
        return Tone.OPEN, f"There is no interval for a change of {what}."
    if change.low > 0:
        return Tone.GOOD, "Above the base model: the whole interval of the change lies above zero."
    if change.high < 0:
        return Tone.BAD, "Below the base model: the whole interval of the change lies below zero."
    return Tone.OPEN, f"No change of {what} is shown: the interval of the change contains zero."


def _judge(iteration: int, values: Numbers) -> Finding:
    canaries, attacks = values[JudgeMetrics.canary_auc], values.get(JudgeMetrics.injection_auc)
    weak = [
        name
        for name, value in (("worthless answers", canaries), ("answers that give it orders", attacks))
        if value is not None and value <= _CHANCE
    ]
    shown = f"canaries {canaries:.2f}" + ("" if attacks is None else f", injections {attacks:.2f}")
    if values.get(JudgeMetrics.unfit):
        tone, sentence = Tone.BAD, "A gate refuses the judge, and the run went on."
    elif weak:
        tone, sentence = Tone.BAD, f"It rates {' and '.join(weak)} no lower than real ones: its rewards mean little."
    else:
        tone, sentence = Tone.GOOD, "Real answers outscore worthless ones more often than not; 0.5 is chance."
    if values.get(JudgeMetrics.fallback):
        sentence += " The base model judged in place of the configured judge."
    return Finding(f"Judge, iteration {iteration}", shown, sentence, tone)
