"""`dynalign report`: what runs on this machine did, as one HTML file."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.cli.terminal import count_of, say
from dynalign_operator.cli.workdirs import find_workdir, load_run

if TYPE_CHECKING:
    from dynalign_operator.api.v1alpha1 import AlignmentRun


def report(
    places: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="WORKDIR|FILE",
            help="Working folders or run files. Default: the only run in runs/.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write. Default: report.html in the working folder; here for several runs.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a report of a run, or of several side by side, as one HTML file that needs no network.

    Runs that are still running or have failed are reported as far as they came.
    """
    from dynalign_contract.layout import RunLayout

    workdirs = [find_workdir(place) for place in dict.fromkeys(places or [])] or [find_workdir(None)]
    file = output or (RunLayout(workdirs[0]).report if len(workdirs) == 1 else Path("report.html"))
    stored = [(folder, load_run(folder)) for folder in workdirs]
    try:
        size, problems = make_report(file, stored)
    except ModuleNotFoundError as error:
        say(f"a report needs {error.name}: install dynalign[report].", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    except OSError as error:
        say(f"{file} cannot be written ({error.strerror}); name another file with -o.", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    for problem in problems:
        say(f"not in the report: {problem}", err=True)
    say(f"{file} ({size / 1e6:.1f} MB) reports {count_of(len(stored), 'run')}; open it in a browser.")


def report_run(run: "AlignmentRun", folder: Path) -> None:
    """Write report.html into a run's working folder. Whatever goes wrong is said, and costs the report only."""
    from dynalign_contract.layout import RunLayout

    try:
        make_report(RunLayout(folder).report, [(folder, run)])
    except Exception as error:  # noqa: BLE001 - a fault of the report is no fault of the run
        say(f"there is no report: {type(error).__name__}: {error}", err=True)


def make_report(file: Path, stored: "Sequence[tuple[Path, AlignmentRun]]") -> tuple[int, list[str]]:
    """Write the report of runs in their working folders; returns its bytes and what could not be read.

    Raises OSError where the file cannot be written, ModuleNotFoundError without the packages of `dynalign[report]`.
    """
    from dynalign_operator.planning.run_facts import facts_of
    from dynalign_report.folder import read_reported_run
    from dynalign_report.report import write_report

    names = [run.metadata.name for _, run in stored]
    runs = [
        read_reported_run(
            folder,
            facts_of(run),
            run.metadata.name if names.count(run.metadata.name) == 1 else f"{run.metadata.name} ({folder})",
        )
        for folder, run in stored
    ]
    size = write_report(file, runs, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    return size, [problem for run in runs for problem in run.problems]
