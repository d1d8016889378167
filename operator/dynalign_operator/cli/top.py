"""`dynalign top`: every run that one may see, a line each."""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_operator.cli.run_choice import (
    Context,
    Kubeconfig,
    LocalOnly,
    OneNamespace,
    RunChoice,
    is_plugin,
    run_command,
)
from dynalign_operator.cli.terminal import open_console, say

if TYPE_CHECKING:
    from rich.table import Table

    from dynalign_operator.clusters.run_source import RunList, RunSource

_LOOK_EVERY_SECONDS = 2.0


def top(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Draw the table anew until Ctrl-C.")] = False,
    local: LocalOnly = False,
    namespace: OneNamespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List every run that you may see: phase, iteration, stage, progress, estimated end, requested GPUs.

    That is the working folders in runs/, and the runs of the cluster of your kubeconfig, where you have one.
    """

    async def work() -> int:
        async with AsyncExitStack() as stack:
            sources = await _open_sources(stack, RunChoice(None, namespace, context, kubeconfig), local=local)
            if watch:
                await _redraw(sources)
            else:
                found = await _list(sources)
                _say_notes(found)
                open_console().print(_table(found))
        return 0

    run_command(work)


async def _open_sources(stack: AsyncExitStack, choice: RunChoice, *, local: bool) -> "list[RunSource]":
    """The places to look at. Raises NoClusterError where a cluster is named, or nothing else is there."""
    from dynalign_operator.cli.workdirs import RUNS
    from dynalign_operator.clusters.local.run_source import LocalRunSource
    from dynalign_operator.clusters.run_source import NoClusterError

    must_ask = choice.names_cluster or is_plugin()
    folders = {} if must_ask else {str(path.parent): path.parent for path in sorted(RUNS.glob("*/run.json"))}
    sources: list[RunSource] = [LocalRunSource(folders)] if folders else []
    if not local:
        try:
            cluster = choice.open_cluster(everywhere=choice.namespace is None)
            sources.append(await stack.enter_async_context(cluster))
        except NoClusterError:
            if not sources:
                raise
    return sources


async def _list(sources: "list[RunSource]") -> "RunList":
    """All runs together; where there are several sources, one that cannot be read is a note. Raises ClusterError."""
    from dynalign_operator.clusters.errors import ClusterError
    from dynalign_operator.clusters.run_source import RunList

    lists = []
    for source in sources:
        try:
            lists.append(await source.list_runs())
        except ClusterError as error:
            if len(sources) == 1:
                raise
            lists.append(RunList((), (str(error),)))
    return RunList(
        tuple(run for found in lists for run in found.runs), tuple(note for found in lists for note in found.notes)
    )


def _table(found: "RunList") -> "Table":
    from datetime import datetime

    from dynalign_operator.cli.run_table import run_table

    return run_table(found.runs, datetime.now().astimezone())


async def _redraw(sources: "list[RunSource]") -> None:
    import asyncio

    from rich.live import Live

    with Live(console=open_console(), auto_refresh=False) as live:
        while True:
            live.update(_table(await _list(sources)), refresh=True)
            await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _say_notes(found: "RunList") -> None:
    for note in found.notes:
        say(f"note: {note}", err=True)
    if not found.runs:
        say("there are no runs.", err=True)
