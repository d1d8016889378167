"""`dynalign run`: a whole run on this machine, from where it stands to its end."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_operator.cli.settings import Settings
from dynalign_operator.cli.terminal import open_console, say

if TYPE_CHECKING:
    from rich.console import Console

    from dynalign_operator.api.v1alpha1 import AlignmentRun
    from dynalign_operator.cli.drive import Stop, View
    from dynalign_operator.cli.ending import Invocation
    from dynalign_operator.clusters.local.cluster import LocalCluster
    from dynalign_operator.runfile.run_file import RunFile


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Run file.", show_default=False)],
    workdir: Annotated[
        Path | None, typer.Option(help="Working folder. Default: runs/NAME.", show_default=False)
    ] = None,
    *,
    settings: Settings = None,
    plain: Annotated[bool, typer.Option("--plain", help="Print a line for each event, no live display.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors and the summary only.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="End with every number, not the most important ones.")] = False,
) -> None:
    """Run on this machine, or continue where the run stopped.

    Exit code 0: the run is complete. 10: bad configuration. 11: bad input. 12: a gate or a person refused. 20: the run
    waits for `dynalign approve`. 75: another dynalign works in the folder. 130 or 143: stopped by a signal. 1: anything
    else.
    """
    from dynalign_contract.exit_codes import ExitCode
    from dynalign_operator.cli.ending import Invocation
    from dynalign_operator.cli.installed import explain_missing, missing_packages
    from dynalign_operator.cli.load import load_run_file, require_keys, require_objective
    from dynalign_operator.cli.report_problems import report_notes, report_problems
    from dynalign_operator.runfile.run_file import RunFileError

    try:
        loaded = require_objective(load_run_file(file, settings or ()))
        run_file = report_notes(file, require_keys(loaded, os.environ))
    except RunFileError as error:
        raise typer.Exit(report_problems(file, error)) from error
    if missing := missing_packages():
        say(explain_missing(missing), err=True)
        raise typer.Exit(ExitCode.BAD_CONFIG)
    folder = workdir or Path("runs") / run_file.run.metadata.name
    raise typer.Exit(_run(run_file, Invocation(file, folder, settings or ()), plain=plain, quiet=quiet, wide=wide))


def _run(run_file: "RunFile", invocation: "Invocation", *, plain: bool, quiet: bool, wide: bool) -> int:
    from dynalign_operator.cli.ask import ask_for_approval, can_ask
    from dynalign_operator.cli.drive import catch_signals, exit_code_of, is_reported
    from dynalign_operator.cli.ending import print_ending
    from dynalign_operator.cli.report import report_run
    from dynalign_operator.clusters.errors import ClusterError

    console = open_console()
    try:
        while True:
            with catch_signals() as stop:
                ended = _drive(run_file, invocation, console, stop, plain=plain, quiet=quiet)
            if stop.number is not None:
                say(f"stopped. Finished work is kept; `{invocation.command}` goes on from there.", err=True)
                return 128 + stop.number
            is_awaiting = ended.status.awaited_approval is not None and not quiet
            if not (is_awaiting and can_ask(console) and ask_for_approval(console, ended, invocation.folder)):
                break
        if not is_reported(ended):
            report_run(ended, invocation.folder)
        print_ending(console, ended, invocation, wide=wide)
        return exit_code_of(ended.status)
    except ClusterError as error:
        say(str(error), err=True)
        return int(error.exit_code)


def _drive(
    run_file: "RunFile", invocation: "Invocation", console: "Console", stop: "Stop", *, plain: bool, quiet: bool
) -> "AlignmentRun":
    """Carry the run on as far as it goes, and return it as it is stored then. Raises ClusterError."""
    import asyncio

    from dynalign_operator.cli.drive import drive, store_notifications
    from dynalign_operator.clusters.local.cluster import open_local_cluster

    with (
        open_local_cluster(invocation.folder, run_file.run, run_file.config_maps) as cluster,
        _view(console, cluster.run, plain=plain, quiet=quiet) as show,
    ):
        with _notifier(cluster) as notify:
            asyncio.run(drive(cluster, show, stop, notify))
        asyncio.run(store_notifications(cluster))
        if stop.number is not None:
            say("stopping the running stage; it saves what it can ...", err=True)
    return cluster.run


def _notifier(cluster: "LocalCluster") -> "AbstractContextManager[Callable[[], None]]":
    """What to call when the run has changed. The library for requests is imported for a run with webhooks only."""
    if not cluster.run.spec.notify:
        return nullcontext(lambda: None)
    from dynalign_operator.notifying.local import open_local_notifier

    return open_local_notifier(cluster.key, lambda: cluster.run, cluster.deliveries)


def _view(console: "Console", run: "AlignmentRun", *, plain: bool, quiet: bool) -> "AbstractContextManager[View]":
    from dynalign_operator.cli.views import header, live_view, plain_view, silent_view

    if quiet:
        return nullcontext(silent_view)
    if console.is_terminal and not plain:
        return live_view(console)
    console.print(header(run), soft_wrap=True)
    return nullcontext(plain_view(console))
