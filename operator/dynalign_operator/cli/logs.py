"""`dynalign logs`: what a stage of a run on this machine says."""

import time
from pathlib import Path
from typing import Annotated

import typer

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.stages import Stage
from dynalign_operator.cli.terminal import say
from dynalign_operator.cli.workdirs import find_workdir, load_run

_LOOK_EVERY_SECONDS = 0.5


def logs(
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="WORKDIR|FILE",
            help="Working folder or run file. Default: the only run in runs/.",
            show_default=False,
        ),
    ] = None,
    stage: Annotated[Stage | None, typer.Option(help="Stage. Default: the latest.", show_default=False)] = None,
    iteration: Annotated[
        int | None, typer.Option(min=0, help="Iteration, from 0. Default: the latest.", show_default=False)
    ] = None,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Attempt, from 1. Default: the latest.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what is added, until Ctrl-C.")] = False,  # noqa: FBT002 - typer's flag
) -> None:
    """Print the log of a stage's latest attempt, or of the one asked for."""
    workdir = find_workdir(place)
    load_run(workdir)
    path = latest_log(workdir, stage, iteration, attempt)
    if path is None:
        have = ", ".join(sorted(log.stem for log in _logs(workdir))) or "none"
        say(f"{workdir} has no such log; it has {have}.", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT))
    with path.open(encoding="utf-8", errors="replace") as file:
        say(file.read(), end="")
        while follow:
            text = file.read()
            say(text, end="") if text else time.sleep(_LOOK_EVERY_SECONDS)


def latest_log(
    workdir: Path, stage: Stage | None = None, iteration: int | None = None, attempt: int | None = None
) -> Path | None:
    """The log that was written to last among those that match; None where there is none."""
    place = "" if iteration is None else f"-i{iteration:03d}"
    wanted = f"{place}-{stage or '*'}-a{attempt or '*'}"
    matching = [path for path in _logs(workdir) if path.match(f"*{wanted}.log") or path.match(f"*{wanted}-[0-9]*.log")]
    return max(matching, key=lambda path: path.stat().st_mtime, default=None)


def _logs(workdir: Path) -> list[Path]:
    return [path for path in (workdir / "logs").glob("*.log") if path.name != "events.log"]
