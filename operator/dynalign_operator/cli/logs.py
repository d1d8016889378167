"""`dynalign logs`: what a stage of a run says, in a cluster as on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_contract.stages import Stage
from dynalign_operator.cli.run_choice import (
    Context,
    Kubeconfig,
    Namespace,
    RunArgument,
    RunChoice,
    open_run,
    run_command,
)
from dynalign_operator.cli.terminal import say

if TYPE_CHECKING:
    from dynalign_operator.clusters.run_source import LogOrigin


def logs(
    run: RunArgument = None,
    *,
    stage: Annotated[Stage | None, typer.Option(help="Stage. Default: the latest.", show_default=False)] = None,
    iteration: Annotated[
        int | None, typer.Option(min=0, help="Iteration, from 0. Default: the latest.", show_default=False)
    ] = None,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Attempt, from 1. Default: the latest.", show_default=False)
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Print what is added, retries and later stages too, to the run's end."),
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option(min=0, help="Begin with this many lines of each shard. Default: all.", show_default=False),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the log of a stage's latest attempt, or of the one asked for; lines of several shards have a prefix.

    With -f it goes on with the next attempt, and with the same stage of the next iteration; without --stage with every
    stage that follows. It ends with the run, or with the attempt that --attempt names.
    """

    async def work() -> int:
        from dynalign_operator.clusters.run_source import LogSelection

        wanted, origin = LogSelection(stage, iteration, attempt), None
        async with open_run(RunChoice(run, namespace, context, kubeconfig)) as (source, name):
            async for line in source.logs(name, wanted, follow=follow, tail=tail):
                if follow and (origin is None or origin.job != line.origin.job):
                    say(_heading(line.origin), err=True)
                origin = line.origin
                say(f"{_prefix(origin)}{line.text}")
        return 0

    run_command(work)


def latest_log(workdir: Path) -> Path | None:
    """The log in a working folder that was written to last; None where there is none."""
    from dynalign_operator.clusters.local.log_files import find_logs
    from dynalign_operator.clusters.local.workdir import Workdir
    from dynalign_operator.clusters.run_source import LogSelection

    found = max(find_logs(Workdir(workdir), LogSelection()), key=lambda log: log.modified, default=None)
    return None if found is None else found.path


def _heading(origin: "LogOrigin") -> str:
    return f"==> {origin.step}, attempt {origin.attempt} (Job {origin.job}) <=="


def _prefix(origin: "LogOrigin") -> str:
    return f"[{origin.step.stage}/{origin.index}] " if origin.has_others else ""
