"""`dynalign`: the commands, and nothing else."""

import typer

from dynalign_operator.cli.logs import logs
from dynalign_operator.cli.prompts import prompts
from dynalign_operator.cli.render import render
from dynalign_operator.cli.run import run
from dynalign_operator.cli.status import status
from dynalign_operator.cli.validate import validate

app = typer.Typer(
    name="dynalign",
    help="Check, run and inspect AlignmentRuns: a language model that aligns itself, iteration by iteration.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (validate, render, run, status, prompts, logs):
    app.command()(_command)


def main() -> None:
    """Entry point of the script `dynalign`."""
    app()
