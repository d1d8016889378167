"""`dynalign report`: what runs on this machine did, as one HTML file."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.cli.terminal import count_of, say
from dynalign_operator.cli.workdirs import find_workdir, load_run

if TYPE_CHECKING:
    from dynalign_report.facts import ReportedRun


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
    runs = _read(workdirs)
    size = _write(file, runs)
    for run in runs:
        for problem in run.problems:
            say(f"not in the report: {problem}", err=True)
    say(f"{file} ({size / 1e6:.1f} MB) reports {count_of(len(runs), 'run')}; open it in a browser.")


def _read(workdirs: Sequence[Path]) -> "list[ReportedRun]":
    stored = [(folder, load_run(folder)) for folder in workdirs]
    try:
        from dynalign_operator.cli.report_facts import facts_of
        from dynalign_report.folder import read_reported_run
    except ModuleNotFoundError as error:
        _exit_without(error)
    names = [run.metadata.name for _, run in stored]
    return [
        read_reported_run(
            folder,
            facts_of(run),
            run.metadata.name if names.count(run.metadata.name) == 1 else f"{run.metadata.name} ({folder})",
        )
        for folder, run in stored
    ]


def _write(file: Path, runs: "list[ReportedRun]") -> int:
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    try:
        from dynalign_report.report import write_report

        return write_report(file, runs, made)
    except ModuleNotFoundError as error:
        _exit_without(error)
    except OSError as error:
        say(f"{file} cannot be written ({error.strerror}); name another file with -o.", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error


def _exit_without(error: ModuleNotFoundError) -> NoReturn:
    say(f"a report needs {error.name}: install dynalign[report].", err=True)
    raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
