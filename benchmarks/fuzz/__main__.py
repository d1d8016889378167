"""`python -m benchmarks.fuzz --documents N --states N --artifacts N`: ends with 1 if a promise was broken.

Every input has a seed of its own; a failure prints it with the command that tries that input alone.
"""

import argparse
import secrets
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.fuzz.artifacts import ARTIFACTS
from benchmarks.fuzz.documents import DOCUMENTS
from benchmarks.fuzz.states import STATES
from benchmarks.fuzz.trials import Fuzzer, Outcomes, kinds_of, try_inputs
from benchmarks.report import print_report, this_machine

FUZZERS: tuple[Fuzzer, ...] = (DOCUMENTS, STATES, ARTIFACTS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the fuzzers that are asked for; returns the exit code."""
    arguments = _parse(argv)
    seed = secrets.randbelow(2**31) if arguments.seed == "random" else int(arguments.seed)
    machine, table = this_machine(), _table(seed)
    values: dict[str, float] = {"seed": seed}
    failed = False
    for fuzzer in FUZZERS:
        count = getattr(arguments, fuzzer.name)
        if not count:
            continue
        began = time.monotonic()
        outcomes = try_inputs(fuzzer, count, seed)
        seconds = time.monotonic() - began
        _print_failures(outcomes)
        failed = failed or bool(outcomes.failures)
        told = ", ".join(f"{outcome} {number}" for outcome, number in outcomes.counts.most_common())
        table.add_row(fuzzer.name, f"{count}", f"{len(outcomes.failures)}", f"{seconds:.0f} s", told)
        values |= {fuzzer.name: count, f"{fuzzer.name}_failed": len(outcomes.failures)}
    print_report("fuzz", machine, table, values, {})
    return int(failed)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    for fuzzer in FUZZERS:
        parser.add_argument(f"--{fuzzer.name}", type=int, default=0, metavar="N", help="inputs to try; default: none")
    parser.add_argument("--seed", default="0", help="of the first input, a number or `random`; default: 0")
    return parser.parse_args(argv)


def _table(seed: int) -> Table:
    table = Table(title=f"fuzz, seed {seed}", title_justify="left", box=None, pad_edge=False)
    for heading in ("inputs", "tried", "failed", "time", "outcomes"):
        table.add_column(heading, overflow="fold")
    return table


def _print_failures(outcomes: Outcomes) -> None:
    console = Console(markup=False, highlight=False, stderr=True)
    for count, failure in kinds_of(outcomes.failures):
        console.print(f"{count} x {failure.text}\n    again: {failure.command}\n", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
