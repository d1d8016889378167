"""`make bench-demo`: does `make demo` change the model visibly, and without loss, whatever the seed?

Runs examples/demo.yaml once for each seed, one after the other, each in a folder of its own, and reads what the runs
found. A seed *passes* if the lower end of its win rate lies above one half, and capability was not lost: the upper end
of its change is not below 0. A run that was interrupted goes on when the benchmark is started again.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from rich.table import Table

from benchmarks.report import print_report, this_machine
from dynalign_contract.estimate import Estimate
from dynalign_contract.metrics import EvaluateMetrics, TrainMetrics
from dynalign_operator.api.status import IterationStatus
from dynalign_operator.clusters.local.workdir import Workdir, read_run
from dynalign_operator.planning.iteration_numbers import numbers_of

NAME: Final = "bench-demo"
EXAMPLE: Final = Path(__file__).parents[1] / "examples/demo.yaml"
_DYNALIGN: Final = (sys.executable, "-c", "from dynalign_operator.cli.main import main; main()")


@dataclass(frozen=True)
class Outcome:
    """What one seed came to."""

    seed: int
    win_rate: Estimate
    held_out_reward_delta: Estimate | None
    capability_delta: Estimate | None
    kl: float | None
    """Nats a token, to the base model."""
    seconds: float
    """From start to end, all stages; of the last start where the run was interrupted."""
    cpu_seconds: float
    """Of all processes in that time."""

    @property
    def passes(self) -> bool:
        """The win rate lies above one half with its whole interval, and capability was not lost beyond its interval."""
        lost = self.capability_delta is not None and self.capability_delta.is_below(0.0)
        return self.win_rate.low is not None and self.win_rate.low > 0.5 and not lost


def main() -> int:
    """Run the seeds; 1 if one of the runs failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-demo"), help="where the runs are kept")
    parser.add_argument("--json", type=Path, help="write every seed's figures into this file too")
    arguments = parser.parse_args()
    machine, outcomes = this_machine(), []
    for seed in arguments.seeds:
        outcome = run_seed(seed, arguments.folder)
        if outcome is None:
            return 1
        outcomes.append(outcome)
        if arguments.json:
            arguments.json.write_text(json.dumps([_plain(found) for found in outcomes], indent=1) + "\n")
    passed = sum(outcome.passes for outcome in outcomes)
    values = {"seeds": float(len(outcomes)), "passed": float(passed)}
    print_report(NAME, machine, outcome_table(outcomes), values, {"passed": round(passed / len(outcomes), 3)})
    return 0


def run_seed(seed: int, folder: Path) -> Outcome | None:
    """Run the example with a seed; None if it failed, as its output says."""
    run = yaml.safe_load(EXAMPLE.read_text())
    run["metadata"]["name"] = f"demo-{seed}"
    run["spec"]["seed"] = seed
    workdir = folder / f"seed-{seed}"
    workdir.mkdir(parents=True, exist_ok=True)
    file = folder / f"seed-{seed}.yaml"
    file.write_text(yaml.safe_dump(run, sort_keys=False))
    started, cpu = time.monotonic(), _cpu_of_children()
    command = [*_DYNALIGN, "run", str(file), "--workdir", str(workdir), "--plain"]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        return None
    stored = read_run(Workdir(workdir))
    if stored is None or not stored.status.iterations:
        return None
    return read_outcome(seed, stored.status.iterations[-1], time.monotonic() - started, _cpu_of_children() - cpu)


def read_outcome(seed: int, iteration: IterationStatus, seconds: float, cpu_seconds: float) -> Outcome | None:
    """The figures of a finished iteration; None if it was not evaluated."""
    if iteration.win_rate is None:
        return None
    numbers = numbers_of(iteration)
    return Outcome(
        seed=seed,
        win_rate=iteration.win_rate,
        held_out_reward_delta=EvaluateMetrics.held_out_reward_delta.join(numbers),
        capability_delta=iteration.capability_delta,
        kl=numbers.get(TrainMetrics.kl),
        seconds=round(seconds, 1),
        cpu_seconds=round(cpu_seconds, 1),
    )


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """A line for each seed."""
    table = Table(
        "seed", "win rate", "held-out reward, change", "capability, change", "KL", "seconds", "CPU s", "passes"
    )
    for found in outcomes:
        table.add_row(
            str(found.seed),
            found.win_rate.text(".2f"),
            _text(found.held_out_reward_delta),
            _text(found.capability_delta),
            "-" if found.kl is None else f"{found.kl:.4f}",
            f"{found.seconds:.0f}",
            f"{found.cpu_seconds:.0f}",
            "yes" if found.passes else "no",
        )
    return table


def _text(estimate: Estimate | None) -> str:
    return "-" if estimate is None else estimate.text("+.3f")


def _plain(outcome: Outcome) -> dict[str, object]:
    estimates = {
        name: value.model_dump(mode="json") if isinstance(value, Estimate) else value
        for name, value in vars(outcome).items()
    }
    return {**estimates, "passes": outcome.passes}


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
