"""The Packed backend of this checkout against that of another one, on the same recorded groups as `make bench-trainer`.

    git worktree add ../before COMMIT
    python -m benchmarks.trainer_versions ../before

Each training is one of `benchmarks.trainer`, run in the checkout whose code it measures, by turns, with the libraries
of this environment. Every ratio is this checkout / the other, the median over pairs; `cpu` is loss tokens by processor
time, which other work on the machine hardly disturbs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich.table import Column, Table

from benchmarks.report import print_report, this_machine
from benchmarks.trainer import BATCH_FOLDER, GROUPS, PAIRS, prepare
from dynalign_contract.layout import BATCH_FILE
from dynalign_contract.records import BatchRow

NAME: Final = "bench-trainer-versions"
_HERE: Final = Path(__file__).parents[1]
_MEASURES: Final = ("throughput", "whole", "cpu", "memory_gib")
_MEASURE: Final = """\
import json, sys
from dataclasses import asdict
from pathlib import Path
from benchmarks import trainer
from dynalign_contract.records import BATCH, read_rows
from dynalign_contract.settings import TrainingBackend
folder, batch, job = Path(sys.argv[1]), Path(sys.argv[2]), trainer._job
trainer._job = lambda *facts: job(*facts).model_copy(update={"batch": batch})
found = trainer.measure(folder, read_rows(batch, BATCH), TrainingBackend.PACKED)
print(json.dumps(asdict(found)))
"""
"""Runs in either checkout, by names that both have had for long; the batch does not lie in the same place in all."""


@dataclass(frozen=True)
class Checkout:
    """Code that is measured."""

    name: str
    folder: Path

    def measure(self, work: Path) -> dict[str, float]:
        """One training of the batch in a folder. Raises CalledProcessError, after its messages, where it fails."""
        paths = os.pathsep.join(str(self.folder / part) for part in ("", "trainer", "operator"))
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(work), str(work / BATCH_FOLDER / BATCH_FILE)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when everything was measured."""
    parser = argparse.ArgumentParser(prog=NAME, description="Packed of this checkout against that of another.")
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="trainings of each")
    parser.add_argument("--groups", type=int, default=GROUPS, help="prompts, of 8 candidates each")
    options = parser.parse_args(arguments)
    machine = this_machine()
    ours, theirs = Checkout("this", _HERE), Checkout("other", options.other.resolve())
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder:
        work = Path(folder)
        rows = prepare(work, options.groups)
        for number in range(options.pairs):
            # whoever is second finds warmer caches
            order = (ours, theirs) if number % 2 else (theirs, ours)
            found = {checkout.name: checkout.measure(work) for checkout in order}
            pairs.append((found["this"], found["other"]))
            sys.stderr.write(f"{NAME}: pair {number + 1} of {options.pairs}: {pairs[-1]}\n")
    table, values, ratios = summarise(pairs, rows)
    print_report(NAME, machine, table, values, ratios)
    return 0


def summarise(
    pairs: Sequence[tuple[dict[str, float], dict[str, float]]], rows: Sequence[BatchRow]
) -> tuple[Table, dict[str, float], dict[str, float]]:
    """The table, and values and ratios of the JSON line, of pairs (this, other)."""
    table = Table("checkout", *(Column(name, justify="right") for name in _MEASURES))
    values: dict[str, float] = {"pairs": len(pairs), "completions": len(rows)}
    for index, name in enumerate(("this", "other")):
        middle = {measure: median(pair[index][measure] for pair in pairs) for measure in _MEASURES}
        table.add_row(name, *(f"{value:.2f}" for value in middle.values()))
        values |= {f"{name}_{measure}": round(value, 3) for measure, value in middle.items()}
    ratios = {
        measure.removesuffix("_gib"): round(median(ours[measure] / theirs[measure] for ours, theirs in pairs), 3)
        for measure in _MEASURES
    }
    table.caption = "this / other, medians over pairs: " + ", ".join(f"{k} {v:.3f}" for k, v in ratios.items())
    return table, values, ratios


if __name__ == "__main__":
    sys.exit(main())
