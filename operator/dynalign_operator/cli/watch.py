"""`dynalign watch`: a run as it goes on, in a cluster or on this machine, to its end."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

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
from dynalign_operator.cli.terminal import open_console, say

if TYPE_CHECKING:
    from rich.console import Console

    from dynalign_operator.cli.watch_views import View
    from dynalign_operator.clusters.run_source import RunEvent, RunSnapshot, RunSource

_LOOK_EVERY_SECONDS: Final = 2.0
_STOPPED: Final = 1
"""Exit code for a run of this machine that no process works on any more, before its end."""


def watch(
    run: RunArgument = None,
    *,
    plain: Annotated[bool, typer.Option("--plain", help="Print a line for each event, no live display.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show a run as it goes on, and end with it and with its exit code.

    That code is what `dynalign run` ends with: 0 for a complete run, else the class of the failure. A run of the
    cluster that is suspended, or waits for you, is watched on. Where stdout is no terminal, a line is printed for each
    event.
    """

    async def work() -> int:
        async with open_run(RunChoice(run, namespace, context, kubeconfig)) as (source, name):
            return await _watch(source, name, plain=plain)

    run_command(work)


async def _watch(source: "RunSource", name: str, *, plain: bool) -> int:
    from datetime import datetime

    from dynalign_operator.cli.description import headline, situation
    from dynalign_operator.cli.situation import explain_situation

    console, looks = open_console(), Looks(source, name)
    with _view(console, plain=plain) as show:
        while True:
            snapshot, events = await looks.look()
            now = datetime.now().astimezone()
            show(snapshot, events, now)
            code = end_code(snapshot)
            if code is not None:
                break
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
    console.print(headline(snapshot, now))
    console.print(situation(explain_situation(snapshot, events, now)))
    return code


def end_code(snapshot: "RunSnapshot") -> int | None:
    """The exit code of a run that has ended; None while it goes on, or may."""
    from dynalign_operator.api.status import Phase
    from dynalign_operator.cli.drive import exit_code_of, is_over

    run, status = snapshot.run, snapshot.run.status
    if snapshot.place.is_cluster:
        ended = status.phase in (Phase.SUCCEEDED, Phase.FAILED)
        return exit_code_of(status) if ended and status.observed_generation == run.metadata.generation else None
    if snapshot.is_driven:
        return None
    return exit_code_of(status) if is_over(status) else _STOPPED


@dataclass
class Looks:
    """Looks at a run again and again; an API server that is away for a while ends nothing."""

    source: "RunSource"
    name: str
    _last: "tuple[RunSnapshot, tuple[RunEvent, ...]] | None" = None
    _reads_events: bool = True

    async def look(self) -> "tuple[RunSnapshot, tuple[RunEvent, ...]]":
        """The run and its events now, or as they were last. Raises ClusterError."""
        from dynalign_operator.clusters.run_source import UnreachableError

        try:
            snapshot = await self.source.get(self.name)
            self._last = snapshot, await self._events(snapshot)
        except UnreachableError:
            if self._last is None:
                raise
        return self._last

    async def _events(self, snapshot: "RunSnapshot") -> "tuple[RunEvent, ...]":
        from dynalign_operator.clusters.run_source import NotAllowedError

        if not self._reads_events:
            return ()
        try:
            return await self.source.events(snapshot)
        except NotAllowedError as error:
            self._reads_events = False
            say(f"note: {error}", err=True)
            return ()


def _view(console: "Console", *, plain: bool) -> "AbstractContextManager[View]":
    from dynalign_operator.cli.watch_views import live_view, plain_view

    return live_view(console) if console.is_terminal and not plain else nullcontext(plain_view(console))
