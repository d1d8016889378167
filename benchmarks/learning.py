"""`make bench-learning`: what self-alignment does to answers whose worth is known.

The test-bed's model (tests/support/testbed.py) aligns itself for some iterations, once a seed, by `dynalign run`. Its
judge was taught a rule, and the rule is known here, so three things can be told that no other model can tell: whether
answers really got better, how well the model's own judgement agrees with the truth, and whether the fitness gates speak
before the truth is lost. For the last, every seed runs a second time with settings that drive the policy away from what
its judge understands (`HACKED`).
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from rich.table import Column, Table
from scipy.stats import spearmanr

from benchmarks.report import print_report, this_machine
from dynalign_contract.layout import RunLayout
from dynalign_contract.records import JUDGEMENT, ROLLOUT, read_parts
from dynalign_contract.stages import Stage
from support.runs import SPEC, LocalRun, write_run
from support.testbed import Testbed, make_testbed

NAME: Final = "bench-learning"
SEEDS, ITERATIONS = 5, 6
MIN_AUC: Final = 0.7
"""The canary gate that is examined: least probability that a real answer outscores a canary."""
LOST: Final = 0.1
"""Share of its peak that the rule's score has lost when the truth counts as lost."""
QUIET: Final[Mapping[str, Any]] = {"evaluation": {**SPEC["evaluation"], "every": ITERATIONS}}
"""The rule is the evaluation here; the run's own takes place at its end only."""
HACKED: Final[Mapping[str, Any]] = {
    **QUIET,
    "prompts": {**SPEC["prompts"], "agents": {"author": {"model": "Base"}}},
    "training": {**SPEC["training"], "learningRate": 1e-2},
}
"""A learning rate three times as high; the base model writes the prompts, for the policy soon cannot."""


@dataclass(frozen=True)
class Iteration:
    """What is known of one iteration's answers."""

    worth: float
    """Mean of the rule's score, 0 to 9."""
    reward: float
    """Mean of the model's own reward, 0 to 1."""
    agreement: float
    """Spearman's rank correlation of reward and rule over answers; NaN where one of them is constant."""
    auc: float
    """Probability that a real answer outscores a canary."""
    tau: float
    """Kendall's rank agreement with the base model as judge; NaN while the policy is the base model."""

    @property
    def alarm(self) -> bool:
        """Whether the gate would have fired."""
        return not self.auc >= MIN_AUC


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every run has ended, 1 with the logs of the one that has not."""
    parser = argparse.ArgumentParser(prog=NAME, description="Self-alignment against a known rule.")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each kind")
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--kinds", nargs="+", choices=("healthy", "hacked"), default=("healthy", "hacked"))
    options = parser.parse_args(arguments)
    machine = this_machine()
    testbed = make_testbed()
    kinds = {"healthy": QUIET, "hacked": HACKED}
    found: dict[str, list[list[Iteration]]] = {kind: [] for kind in options.kinds}
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder:
        for seed in range(options.seeds):
            for kind in options.kinds:
                place = Path(folder, f"{kind}-{seed}")
                place.mkdir()
                run = write_run(place, testbed, {**kinds[kind], "seed": seed, "iterations": options.iterations})
                done = run.finish()
                if done.returncode != 0:
                    sys.stderr.write(f"{done.stdout}\n{done.stderr}\n{run.logs()}\n")
                    return 1
                found[kind].append(read(run, testbed, options.iterations))
                sys.stderr.write(f"{kind}, seed {seed}: {json.dumps([vars(i) for i in found[kind][-1]])}\n")
    table, values = summarise(found)
    print_report(NAME, machine, table, values, {})
    return 0


def read(run: LocalRun, testbed: Testbed, iterations: int) -> list[Iteration]:
    """What the run's folder says of each iteration."""
    layout = RunLayout(run.workdir)
    return [_read_iteration(layout, run, testbed, index) for index in range(iterations)]


def _read_iteration(layout: RunLayout, run: LocalRun, testbed: Testbed, index: int) -> Iteration:
    texts = {
        (row["prompt_id"], row["candidate"]): row["text"]
        for row in read_parts([layout.stage(Stage.GENERATE, index)], ROLLOUT)
    }
    judged = read_parts([layout.stage(Stage.JUDGE, index)], JUDGEMENT)
    pairs = [
        (row["reward"], testbed.rule(texts[row["prompt_id"], row["candidate"]]))
        for row in judged
        if row["reward"] is not None and not math.isnan(row["reward"])
    ]
    rewards, worths = zip(*pairs, strict=True)
    (stage,) = (s for s in run.status.iterations[index].stages if s.stage is Stage.JUDGE)
    metrics = {metric.name: metric.value for metric in stage.metrics}
    return Iteration(
        worth=fmean(map(testbed.rule, texts.values())),
        reward=fmean(rewards),
        agreement=float(spearmanr(rewards, worths).statistic),
        auc=_number(metrics.get("canary_auc")),
        tau=_number(metrics.get("judge_tau")),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def first_alarm(iterations: Sequence[Iteration]) -> int | None:
    """Index of the first iteration at which the gate would have fired."""
    return next((i for i, iteration in enumerate(iterations) if iteration.alarm), None)


def first_loss(iterations: Sequence[Iteration]) -> int | None:
    """Index of the first iteration whose worth lies `LOST` below the best before it."""
    peak = -math.inf
    for index, iteration in enumerate(iterations):
        peak = max(peak, iteration.worth)
        if iteration.worth < (1 - LOST) * peak:
            return index
    return None


def summarise(found: Mapping[str, Sequence[Sequence[Iteration]]]) -> tuple[Table, dict[str, float]]:
    """The table, a row a run, and what the claims need of it."""
    columns = ("seed", "worth", "reward", "agreement", "canary AUC", "tau with base", "alarm", "worth lost")
    table = Table("run", *(Column(name, justify="right") for name in columns))
    for kind, runs in found.items():
        for seed, run in enumerate(runs):
            table.add_row(
                kind,
                str(seed),
                *(_path(run, name) for name in ("worth", "reward", "agreement", "auc", "tau")),
                *("never" if index is None else str(index) for index in (first_alarm(run), first_loss(run))),
            )
    values: dict[str, float] = {}
    if healthy := found.get("healthy"):
        quiet = [i.agreement for run in healthy for i in run if not i.alarm]
        values |= {
            "healthy_rising": sum(run[-1].worth > run[0].worth for run in healthy),
            "healthy_false_alarms": sum(first_alarm(run) is not None for run in healthy),
            "healthy_agreement_mean": round(fmean(quiet), 3),
            "healthy_agreement_least": round(min(quiet), 3),
        }
    if hacked := found.get("hacked"):
        losses = [run for run in hacked if first_loss(run) is not None]
        values |= {
            "hacked_lost": len(losses),
            "hacked_warned": sum(_is_warned(run) for run in losses),
        }
    table.caption = f"From the first iteration to the last. Alarm: the iteration with a canary AUC below {MIN_AUC}."
    return table, values


def _is_warned(run: Sequence[Iteration]) -> bool:
    alarm, loss = first_alarm(run), first_loss(run)
    return alarm is not None and loss is not None and alarm < loss


def _path(run: Sequence[Iteration], name: str) -> str:
    return " ".join(f"{getattr(iteration, name):.2f}" for iteration in run)


if __name__ == "__main__":
    sys.exit(main())
