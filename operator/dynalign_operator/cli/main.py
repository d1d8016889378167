"""`dynalign`: the commands, and nothing else."""

from typing import Annotated

import typer

from dynalign_operator.cli.approve import approve
from dynalign_operator.cli.describe import describe
from dynalign_operator.cli.estimate import estimate
from dynalign_operator.cli.export_data import export_data
from dynalign_operator.cli.export_run import export_run
from dynalign_operator.cli.init import init
from dynalign_operator.cli.logs import logs
from dynalign_operator.cli.prompts import prompts
from dynalign_operator.cli.render import render
from dynalign_operator.cli.report import report
from dynalign_operator.cli.requirements import requirements
from dynalign_operator.cli.run import run
from dynalign_operator.cli.run_choice import installs_completion, program_name
from dynalign_operator.cli.status import status
from dynalign_operator.cli.terminal import say
from dynalign_operator.cli.top import top
from dynalign_operator.cli.validate import validate
from dynalign_operator.cli.verify import verify
from dynalign_operator.cli.watch import watch
from dynalign_operator.ui.command import ui

app = typer.Typer(
    name="dynalign",
    help="Check, run and inspect AlignmentRuns: a language model that aligns itself, iteration by iteration.",
    no_args_is_help=True,
    add_completion=installs_completion(),
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer's callback
    if value:
        from importlib.metadata import version

        say(f"dynalign {version('dynalign')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: FBT002 - typer's flag
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version


_FILES = (init, validate, estimate, render)
_RUNS = (run, ui, top, watch, describe, approve, status, report, prompts, logs, export_run, verify, export_data)
for _command in (*_FILES, *_RUNS, requirements):
    app.command()(_command)


def main() -> None:
    """Entry point of the scripts `dynalign` and `kubectl-dynalign`."""
    app(prog_name=program_name())
