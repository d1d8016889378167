"""`dynalign status`: where a run on this machine stands."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dynalign_operator.cli.terminal import open_console, print_json, say
from dynalign_operator.cli.workdirs import find_workdir, load_run


class Output(StrEnum):
    """Formats for programs."""

    JSON = "json"
    YAML = "yaml"


def status(
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="WORKDIR|FILE",
            help="Working folder or run file. Default: the only run in runs/.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Output | None, typer.Option("-o", "--output", help="Print the whole object in this format.", show_default=False)
    ] = None,
) -> None:
    """Print phase, iterations and conditions of a run; -o prints the object as kubectl does."""
    run = load_run(find_workdir(place))
    if output is Output.JSON:
        print_json(run.to_json(indent=2))
        return
    if output is Output.YAML:
        from dynalign_operator.cli.render import to_yaml

        say(to_yaml([run.model_dump(mode="json", by_alias=True, exclude_none=True)]), end="")
        return
    from dynalign_operator.cli.tables import conditions_table, summary_tables

    console = open_console()
    say(f"{run.metadata.name}: {run.status.phase} {run.status.progress}".rstrip())
    for line in run.status.training.describe() if run.status.training else ():
        say(f"  {line}")
    if run.status.iterations:
        console.print(summary_tables(run.status))
    console.print(conditions_table(run.status))
