"""Finding the working folder that a command means."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.cli.terminal import say

if TYPE_CHECKING:
    from dynalign_operator.api.v1alpha1 import AlignmentRun

RUNS = Path("runs")

WorkdirArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="WORKDIR|FILE",
        help="Working folder or run file. Default: the only run in runs/.",
        show_default=False,
    ),
]


def find_workdir(place: Path | None) -> Path:
    """The folder named, that of the run file named, or the only one in runs/. Exits with a sentence otherwise."""
    if place is None:
        found = sorted(path.parent for path in RUNS.glob("*/run.json"))
        if len(found) == 1:
            return found[0]
        names = ", ".join(map(str, found)) or "none"
        say(f"name a working folder or a run file; in {RUNS} there is {names}.", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT))
    if place.is_dir():
        return place
    from dynalign_operator.cli.load import load_run_file
    from dynalign_operator.cli.report_problems import report_problems
    from dynalign_operator.runfile.run_file import RunFileError

    try:
        return RUNS / load_run_file(place).run.metadata.name
    except RunFileError as error:
        raise typer.Exit(report_problems(place, error)) from error


def load_run(workdir: Path) -> "AlignmentRun":
    """The run stored in a working folder. Exits with a sentence where there is none."""
    from dynalign_operator.clusters.errors import ClusterError
    from dynalign_operator.clusters.local.workdir import Workdir, read_run

    try:
        run = read_run(Workdir(workdir))
    except ClusterError as error:
        say(str(error), err=True)
        raise typer.Exit(int(error.exit_code)) from error
    if run is None:
        say(f"{workdir} holds no run (no run.json); start one with `dynalign run FILE`.", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT))
    return run
