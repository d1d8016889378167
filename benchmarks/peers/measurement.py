"""What is measured of a contender, and whether the contenders have done the same work. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Final

from rich.table import Column, Table

from benchmarks.peers.plan import WORK, Plan, Report

_TOKENS_APART: Final = 0.1
"""Share by which sampled tokens may differ: answers are drawn, and end when their model ends them."""
_SECONDS: Final = ("wall", "command", "cpu", "start", *WORK)
_COUNTS: Final = ("tokens", "questions", "updates")


class Contender(StrEnum):
    """Who does the iteration."""

    DYNALIGN = "dynalign"
    TRL = "trl"
    """TRL's GRPOTrainer alone, in one process."""
    SCRIPTS = "scripts"
    """Three scripts: vLLM samples, vLLM judges, TRL trains."""


PEERS: Final = (Contender.TRL, Contender.SCRIPTS)


@dataclass(frozen=True)
class Measurement:
    """One iteration by one contender."""

    contender: Contender
    round: int
    wall: float
    """Seconds from the start of the first process of sampling, judging or training to the end of the last one."""
    command: float
    """The same from the start of the command that a person types: of dynalign with what comes before sampling."""
    cpu: float
    """Seconds of processor time of all processes of the command."""
    report: Report

    @property
    def start(self) -> float:
        """Wall-clock seconds outside sampling, judging and training."""
        return max(0.0, self.wall - sum(self.report.seconds.values()))


def describe_differences(plan: Plan, measured: Sequence[Measurement]) -> list[str]:
    """Sentences about what a contender has done differently; empty where the work was the same."""
    found = []
    most = max(one.report.tokens for one in measured)
    prompts = {one.report.prompts for one in measured if one.contender is Contender.DYNALIGN}
    for one in measured:
        report, who = one.report, f"{one.contender}, round {one.round + 1}"
        if report.questions != plan.questions:
            found.append(f"{who}: {report.questions} questions to the judge, not {plan.questions}")
        if report.updates != plan.updates:
            found.append(f"{who}: {report.updates} updates, not {plan.updates}")
        if report.tokens < (1 - _TOKENS_APART) * most:
            found.append(f"{who}: {report.tokens} sampled tokens, where another one has {most}")
        if report.prompts not in prompts:
            found.append(f"{who}: its sampler got other prompts than dynalign's")
    return found


def summarise(measured: Sequence[Measurement]) -> tuple[Table, dict[str, float], dict[str, float]]:
    """The table, and values and ratios of the JSON line. Every ratio is the median over rounds of peer / dynalign."""
    figures = {who: _medians([one for one in measured if one.contender is who]) for who in Contender}
    table = Table("median", *(Column(who, justify="right") for who in Contender))
    for name in (*_SECONDS, *_COUNTS):
        form = ".1f" if name in _SECONDS else ".0f"
        label = f"{name}, seconds" if name in _SECONDS else name
        table.add_row(label, *(format(figures[who][name], form) for who in Contender))
    values = {f"{who}_{name}": round(value, 2) for who in Contender for name, value in figures[who].items()}
    ratios = {str(peer): _ratio(measured, peer, "wall") for peer in PEERS}
    ratios |= {f"{peer}_{time}": _ratio(measured, peer, time) for time in ("command", "cpu") for peer in PEERS}
    shown = ", ".join(f"{name} {value:.2f}" for name, value in ratios.items())
    table.caption = f"Rounds: {len(measured) // len(Contender)}. Peer / dynalign, medians over rounds: {shown}"
    return table, values, ratios


def _medians(runs: Sequence[Measurement]) -> dict[str, float]:
    """Name of a figure -> its median over the runs of one contender."""
    own = {name: median(getattr(one, name) for one in runs) for name in ("wall", "command", "cpu", "start")}
    parts = {part: median(one.report.seconds.get(part, 0.0) for one in runs) for part in WORK}
    return own | parts | {name: median(getattr(one.report, name) for one in runs) for name in _COUNTS}


def _ratio(measured: Sequence[Measurement], peer: Contender, time: str) -> float:
    rounds: dict[int, dict[Contender, float]] = {}
    for one in measured:
        rounds.setdefault(one.round, {})[one.contender] = getattr(one, time)
    return round(median(found[peer] / found[Contender.DYNALIGN] for found in rounds.values()), 3)
