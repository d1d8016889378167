"""`dynalign describe`: what a run does, what it waits for, and what to do, in plain words."""

from typing import TYPE_CHECKING

from dynalign_operator.cli.run_choice import (
    Context,
    Kubeconfig,
    Namespace,
    RunArgument,
    RunChoice,
    open_run,
    program_name,
    run_command,
)
from dynalign_operator.cli.terminal import open_console, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dynalign_operator.clusters.run_source import RunEvent, RunSnapshot, RunSource


def describe(
    run: RunArgument = None,
    *,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say in plain words what a run does, what it waits for, and what to do; then figures, events and places.

    It reads a working folder of this machine, or a run of the cluster with the rights of your kubeconfig. The exit code
    says nothing of the run; that of `watch` does.
    """

    async def work() -> int:
        from datetime import datetime

        from dynalign_operator.cli.description import describe_run

        async with open_run(RunChoice(run, namespace, context, kubeconfig)) as (source, name):
            snapshot = await source.get(name)
            events = await read_events(source, snapshot)
        now = datetime.now().astimezone()
        sample = _sample(snapshot)
        open_console().print(describe_run(snapshot, events, now, program=program_name(), sample=sample))
        return 0

    run_command(work)


def _sample(snapshot: "RunSnapshot") -> "RenderableType | None":
    """A sample of what awaits approval; None where nothing does, or the files are not on this machine."""
    from pathlib import Path

    from dynalign_operator.cli.sample import read_sample

    awaited = snapshot.run.status.awaited_approval
    if awaited is None or snapshot.place.is_cluster:
        return None
    return read_sample(Path(snapshot.place.files), awaited)


async def read_events(source: "RunSource", snapshot: "RunSnapshot") -> "tuple[RunEvent, ...]":
    """The events; none, and a sentence on stderr, where the user may not read them."""
    from dynalign_operator.clusters.run_source import NotAllowedError

    try:
        return await source.events(snapshot)
    except NotAllowedError as error:
        say(f"note: {error}", err=True)
        return ()
