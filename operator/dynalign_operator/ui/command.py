"""`dynalign ui`: the command."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.cli.run_choice import (
    Context,
    Kubeconfig,
    LocalOnly,
    OneNamespace,
    RunChoice,
    is_plugin,
    run_command,
)
from dynalign_operator.cli.terminal import say

if TYPE_CHECKING:
    from dynalign_operator.clusters.kubernetes.run_source import KubeRunSource


def ui(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="WORKDIR",
            help="Working folders, or folders that hold some; without a cluster unless an option names it. Default: "
            "runs/ and the cluster of your kubeconfig.",
            show_default=False,
        ),
    ] = None,
    *,
    local: LocalOnly = False,
    namespace: OneNamespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port on 127.0.0.1. Default: the first free one from 8711.", show_default=False
        ),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, and open no browser.")] = False,
) -> None:
    """Serve a live page of your runs on this machine: progress, what to do, plots that grow, logs, changes.

    It has your own rights in the cluster, and answers on 127.0.0.1 to who has the address that it prints.
    """

    async def work() -> int:
        from dynalign_operator.ui.local_runs import LocalRuns
        from dynalign_operator.ui.serve import serve_page

        choice = RunChoice(None, namespace, context, kubeconfig)
        named = choice.names_cluster or is_plugin()
        wants_cluster = not local and (named or not folders)
        runs = LocalRuns(_existing(folders or [])) if folders or not named else None
        async with AsyncExitStack() as stack:
            cluster, notes = await _open_cluster(stack, choice, must=named) if wants_cluster else (None, ())
            return await serve_page(runs, cluster, notes, port=port, browser=not no_browser)

    try:
        run_command(work)
    except ModuleNotFoundError as error:
        say(f"the page needs {error.name}: install dynalign[ui].", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error


def _existing(folders: list[Path]) -> list[Path]:
    """The folders. Exits with a sentence where one is not there."""
    for folder in folders:
        if not folder.is_dir():
            say(f"{folder} is no folder; name a working folder, or one that holds some, such as runs.", err=True)
            raise typer.Exit(int(ExitCode.BAD_INPUT))
    return folders


async def _open_cluster(
    stack: AsyncExitStack, choice: RunChoice, *, must: bool
) -> "tuple[KubeRunSource | None, tuple[str, ...]]":
    """The user's cluster, or why there is none. Raises NoClusterError where one is named."""
    from dynalign_operator.clusters.run_source import NoClusterError

    try:
        opened = choice.open_cluster(everywhere=choice.namespace is None)
        return await stack.enter_async_context(opened), ()
    except NoClusterError as error:
        if must:
            raise
        return None, (f"These are the runs of this machine only: {error}",)
