"""`dynalign status`: where a run stands, in a cluster as on this machine."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_operator.cli.run_choice import (
    Context,
    Kubeconfig,
    Namespace,
    RunArgument,
    RunChoice,
    open_run,
    run_command,
)
from dynalign_operator.cli.terminal import open_console, print_json, say

if TYPE_CHECKING:
    from dynalign_operator.api.v1alpha1 import AlignmentRun


class Output(StrEnum):
    """Formats for programs."""

    JSON = "json"
    YAML = "yaml"


def status(
    run: RunArgument = None,
    *,
    output: Annotated[
        Output | None, typer.Option("-o", "--output", help="Print the whole object in this format.", show_default=False)
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="Print every number.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print phase, iterations and conditions of a run; -o prints the object as kubectl does."""

    async def work() -> int:
        async with open_run(RunChoice(run, namespace, context, kubeconfig)) as (source, name):
            found = (await source.get(name)).run
        _print(found, output, wide=wide)
        return 0

    run_command(work)


def _print(run: "AlignmentRun", output: Output | None, *, wide: bool) -> None:
    if output is Output.JSON:
        print_json(run.to_json(indent=2))
        return
    if output is Output.YAML:
        from dynalign_operator.runfile.yaml_text import to_yaml

        say(to_yaml([run.model_dump(mode="json", by_alias=True, exclude_none=True)]), end="")
        return
    from dynalign_operator.cli.ending import print_summary
    from dynalign_operator.cli.tables import conditions_table

    console = open_console()
    say(f"{run.metadata.name}: {run.status.phase} {run.status.progress}".rstrip())
    for line in run.status.training.describe() if run.status.training else ():
        say(f"  {line}")
    for place in run.status.published:
        say(f"  published: {place.uri}")
    print_summary(console, run, wide=wide)
    console.print(conditions_table(run.status))
