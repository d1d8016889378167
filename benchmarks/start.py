"""`make bench-start`: what each stage does before its first useful work and after its last one.

The bundled model aligns itself as in examples/smollm2.yaml by `dynalign run`, with few prompts. Each process of a stage
logs its phases (dynalign_contract/phases.py); the rest of the time for which it ran is its end. From the second
iteration on the stages are forks of a process that has imported their libraries, but for train.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

from rich.table import Table

from benchmarks.iteration import Size, run_variant
from benchmarks.report import print_report, this_machine
from dynalign_contract.phases import Phase, read_phases
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.clusters.local.records import read_records
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.manifests.labels import read_job_labels

NAME: Final = "bench-start"
END: Final = "end"
"""From the manifest to the end of the process."""


@dataclass(frozen=True)
class Process:
    """A process of a stage, and where its time went."""

    stage: Stage
    iteration: int
    seconds: Mapping[str, float]
    """Phase, or `end` -> seconds."""

    @property
    def useful(self) -> float:
        """Seconds of the phase in which the useful work lies."""
        return self.seconds.get(Phase.WORK, 0.0)

    @property
    def overhead(self) -> float:
        """All seconds outside that phase."""
        return sum(self.seconds.values()) - self.useful


def main() -> int:
    """Measure; 1 if the run failed, or a stage did not say its phases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2, help="the first one is cold")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-start"), help="is emptied first")
    given = parser.parse_args()
    machine = this_machine()
    shutil.rmtree(given.folder, ignore_errors=True)
    workdir = given.folder / "run"
    size = Size(prompts=given.prompts, candidates=4, tokens=32, iterations=given.iterations)
    if run_variant("Separate", size, workdir) is None:
        return 1
    found = read_processes(Workdir(workdir.absolute()))
    if {process.stage for process in found} != set(ITERATION_STAGES):
        return 1
    warm = [process for process in found if process.iteration > 0] or found
    values = {f"{stage}.overhead": round(mean_overhead(warm, stage), 2) for stage in ITERATION_STAGES}
    print_report(NAME, machine, phases_table(warm), values, {"useful": round(useful_share(warm), 3)})
    return 0


def read_processes(workdir: Workdir) -> list[Process]:
    """The processes of a finished run's iterations, in order of iterations and stages."""
    found = []
    for record in read_records(workdir).values():
        labels = read_job_labels(record.labels)
        if labels is None or labels.iteration is None or labels.stage not in ITERATION_STAGES:
            continue
        for pod in record.pods:
            log = workdir.log(record.name, pod.index, record.completions).read_text()
            if pod.end_time is not None and (phases := read_phases(log)):
                lasted = (pod.end_time - pod.start_time).total_seconds()
                end = max(0.0, lasted - sum(phases.values()))
                spent = {str(phase): seconds for phase, seconds in phases.items()}
                found.append(Process(labels.stage, labels.iteration, {**spent, END: round(end, 2)}))
    return sorted(found, key=lambda process: (process.iteration, ITERATION_STAGES.index(process.stage)))


def mean_overhead(processes: Sequence[Process], stage: Stage) -> float:
    """Mean seconds outside useful work of a stage's processes."""
    return fmean(process.overhead for process in processes if process.stage is stage)


def useful_share(processes: Sequence[Process]) -> float:
    """Share of all seconds that is in the phase of the useful work."""
    total = sum(process.useful + process.overhead for process in processes)
    return sum(process.useful for process in processes) / total if total else 0.0


def phases_table(processes: Sequence[Process]) -> Table:
    """A line for each phase, a column for each stage: mean seconds."""
    table = Table("phase", *map(str, ITERATION_STAGES))
    for phase in (*Phase, END):
        cells = []
        for stage in ITERATION_STAGES:
            of_stage = [process.seconds for process in processes if process.stage is stage]
            seconds = [one[phase] for one in of_stage if phase in one]
            cells.append(f"{fmean(seconds):.2f}" if seconds else "-")
        table.add_row(str(phase), *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
