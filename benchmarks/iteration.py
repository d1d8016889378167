"""`make bench-iteration`: how long a whole iteration takes on this machine, and how much of that is useful.

The bundled model aligns itself as in examples/smollm2.yaml, with more prompts and longer answers, by `dynalign run`.
For each iteration are told: wall-clock time from the start of its first stage to the end of its last one; goodput as
the run's own status has it (docs/goodput.md); and the seconds outside sampling, judging, training and evaluating.

`--variants` names two or more ways to run the same specification. Their runs alternate, in turned order each round,
so that other work on the machine meets all of them. The first one is what the others are compared with.
"""

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any, Final

import yaml
from rich.table import Table

from benchmarks.report import print_report, this_machine
from dynalign_contract.goodput import DeviceTime
from dynalign_contract.metrics import STAGE_METRICS, read_metrics
from dynalign_operator.api.status import AlignmentRunStatus, IterationStatus, StageStatus
from dynalign_operator.clusters.local.workdir import Workdir, read_run
from dynalign_operator.planning.goodput import iteration_seconds
from dynalign_operator.planning.stage_status import separate_stages
from lab.local_runs import COMMAND

NAME: Final = "bench-iteration"
EXAMPLE: Final = Path(__file__).parents[1] / "examples/smollm2.yaml"

VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {variant: {"rollout": variant} for variant in ("Separate", "Fused")}
)
"""Name -> fields of the specification in which a variant differs."""


@dataclass(frozen=True)
class Size:
    """How much an iteration has to do."""

    prompts: int = 16
    candidates: int = 8
    tokens: int = 64
    """Tokens of an answer, at most."""
    iterations: int = 3


@dataclass(frozen=True)
class Figures:
    """What one iteration has taken."""

    variant: str
    index: int
    wall: float
    """Seconds from the start of its first stage to the end of its last one."""
    useful: float
    """Seconds of sampling, judging, training and evaluating; one pod runs at a time here."""
    devices: DeviceTime
    """Time of its processes, as the run's status has it: a fused rollout's is that of the evaluation before it too."""

    @property
    def goodput(self) -> float:
        """Useful share of the reserved time, 0 to 1."""
        return self.devices.useful / self.devices.reserved if self.devices.reserved else 0.0

    @property
    def outside(self) -> float:
        """Wall-clock seconds outside useful work, the time between stages included."""
        return max(0.0, self.wall - self.useful)


def main() -> int:
    """Measure the variants; 1 if a run failed or did not measure its time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = Size()
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=1, help="runs of each variant")
    parser.add_argument("--prompts", type=int, default=size.prompts)
    parser.add_argument("--candidates", type=int, default=size.candidates)
    parser.add_argument("--tokens", type=int, default=size.tokens)
    parser.add_argument("--iterations", type=int, default=size.iterations)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-iteration"), help="is emptied first")
    given = parser.parse_args()
    size = Size(given.prompts, given.candidates, given.tokens, given.iterations)
    machine, figures, digests = this_machine(), list[Figures](), list[list[str]]()
    shutil.rmtree(given.folder, ignore_errors=True)
    for number, variant in in_turn(given.variants, given.rounds):
        status = run_variant(variant, size, given.folder / f"{variant}-{number}")
        if status is None or not (found := read_figures(variant, status.iterations)):
            return 1
        figures += found
        digests.append(artifact_digests(status))
    values = summarise(figures) | {"identical": float(all(found == digests[0] for found in digests))}
    print_report(NAME, machine, figures_table(figures), values, compare(figures))
    return 0


def in_turn(variants: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Round and variant of every run: each round in the opposite order of the one before."""
    for number in range(rounds):
        yield from ((number, variant) for variant in (variants if number % 2 == 0 else reversed(variants)))


def build_run(variant: str, size: Size) -> dict[str, Any]:
    """The run file of a variant: the example in another size."""
    run: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    spec = run["spec"]
    run["metadata"]["name"] = f"iteration-{variant.lower()}"
    spec["iterations"] = size.iterations
    spec["prompts"]["perIteration"] = size.prompts
    spec["generation"] |= {"candidates": size.candidates, "maxTokens": size.tokens}
    return {**run, "spec": {**spec, **VARIANTS[variant]}}


def run_variant(variant: str, size: Size, workdir: Path) -> AlignmentRunStatus | None:
    """Run a variant in a folder of its own; None if it failed, as its output says."""
    workdir.mkdir(parents=True)
    file = workdir.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(build_run(variant, size), sort_keys=False))
    command = [*COMMAND, "run", str(file), "--workdir", str(workdir), "--plain"]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        return None
    stored = read_run(Workdir(workdir))
    return None if stored is None else stored.status


def read_figures(variant: str, iterations: Sequence[IterationStatus]) -> list[Figures]:
    """The figures of finished iterations; those that keep no stages in the status are left out."""
    found = []
    for iteration in iterations:
        seconds, stages = iteration_seconds(iteration), separate_stages(iteration)
        starts = [entry.start_time for entry in stages if entry.start_time is not None]
        ends = [entry.completion_time for entry in stages if entry.completion_time is not None]
        if seconds is not None and starts and ends:
            wall = (max(ends) - min(starts)).total_seconds()
            useful = math.fsum(map(_useful_seconds, stages))
            found.append(Figures(variant, iteration.index, wall, useful, seconds))
    return found


def _useful_seconds(entry: StageStatus) -> float:
    return read_metrics(entry.stage, entry.metrics).get(STAGE_METRICS[entry.stage].useful_seconds, 0.0)


def artifact_digests(status: AlignmentRunStatus) -> list[str]:
    """Digests of all artifacts of the iterations, in order."""
    stages = (entry for iteration in status.iterations for entry in iteration.stages)
    return [entry.artifact.digest for entry in stages if entry.artifact is not None]


def summarise(figures: Sequence[Figures]) -> dict[str, float]:
    """Means of each variant over its iterations."""
    values = {}
    for variant, found in _by_variant(figures).items():
        values[f"{variant}.wall"] = round(fmean(one.wall for one in found), 2)
        values[f"{variant}.outside"] = round(fmean(one.outside for one in found), 2)
        values[f"{variant}.goodput"] = round(_goodput(found), 4)
    return values


def compare(figures: Sequence[Figures]) -> dict[str, float]:
    """`wall` of the last variant divided by that of the first; its `goodput`, and its share of seconds `outside`."""
    groups = list(_by_variant(figures).values())
    first, last = groups[0], groups[-1]
    wall = fmean(one.wall for one in last)
    return {
        "wall": round(wall / fmean(one.wall for one in first), 3),
        "goodput": round(_goodput(last), 3),
        "outside": round(fmean(one.outside for one in last) / wall, 3),
    }


def figures_table(figures: Sequence[Figures]) -> Table:
    """A line for each iteration of each run."""
    table = Table("variant", "iteration", "wall s", "useful s", "outside s", "goodput")
    for one in figures:
        numbers = (f"{one.wall:.1f}", f"{one.useful:.1f}", f"{one.outside:.1f}", f"{one.goodput:.1%}")
        table.add_row(one.variant, str(one.index), *numbers)
    return table


def _by_variant(figures: Sequence[Figures]) -> dict[str, list[Figures]]:
    """Figures of each variant, in the order in which the variants were measured first."""
    groups: dict[str, list[Figures]] = {}
    for one in figures:
        groups.setdefault(one.variant, []).append(one)
    return groups


def _goodput(figures: Sequence[Figures]) -> float:
    reserved = sum(one.devices.reserved for one in figures)
    return sum(one.devices.useful for one in figures) / reserved if reserved else 0.0


if __name__ == "__main__":
    sys.exit(main())
