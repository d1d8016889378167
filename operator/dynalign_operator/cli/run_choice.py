"""Which run a command means: a working folder or run file of this machine, or a name in a namespace of a cluster."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dynalign_operator.cli.terminal import say
from dynalign_operator.cli.workdirs import RUNS, find_workdir

if TYPE_CHECKING:
    from dynalign_operator.clusters.kubernetes.run_source import KubeRunSource
    from dynalign_operator.clusters.run_source import RunSource

PROGRAM: Final = "dynalign"
_PLUGIN: Final = "kubectl-dynalign"
"""File name under which kubectl finds the command line as its plugin `kubectl dynalign`."""
_PLUGIN_COMPLETION: Final = "kubectl_complete-dynalign"
"""File name under which kubectl finds the plugin's completion."""
_NO_CLIENT: Final = "Kubernetes' client is not installed in this environment: pip install 'dynalign[operator]'."
_FILES: Final = (".yaml", ".yml", ".json")


def complete_run(incomplete: str) -> list[str]:
    """Names of runs for the shell's completion: working folders here, and runs of the current namespace."""
    from dynalign_operator.cli.completion import run_names

    return run_names(incomplete)


RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="Working folder or run file, or the name of a run in the cluster. Default: the only one.",
        show_default=False,
        autocompletion=complete_run,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option("-n", "--namespace", help="Namespace of the run. Default: the context's.", show_default=False),
]
OneNamespace = Annotated[
    str | None, typer.Option("-n", "--namespace", help="This namespace only. Default: all.", show_default=False)
]
LocalOnly = Annotated[bool, typer.Option("--local", help="Leave the cluster out.")]
Context = Annotated[
    str | None, typer.Option(help="Context of the kubeconfig. Default: the current one.", show_default=False)
]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="kubeconfig file. Default: KUBECONFIG, or ~/.kube/config.", show_default=False)
]


@dataclass(frozen=True)
class RunChoice:
    """What the user has written of a run and of its cluster."""

    run: str | None
    namespace: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None

    @property
    def names_cluster(self) -> bool:
        """Whether an option says that a cluster is meant."""
        return any(value is not None for value in (self.namespace, self.context, self.kubeconfig))

    def open_cluster(self, *, everywhere: bool = False) -> "AbstractAsyncContextManager[KubeRunSource]":
        """Runs of the namespace, or of all that may be read. Raises NoClusterError, without Kubernetes' client too."""
        from dynalign_operator.clusters.run_source import NoClusterError

        if find_spec("kubernetes") is None:
            raise NoClusterError(_NO_CLIENT)
        from dynalign_operator.clusters.kubernetes.run_source import open_kube_source
        from dynalign_operator.clusters.kubernetes.user_access import KubeChoice

        return open_kube_source(KubeChoice(self.namespace, self.context, self.kubeconfig), everywhere=everywhere)


def is_plugin() -> bool:
    """Whether kubectl has started this process as its plugin, so that names are those of the cluster."""
    return Path(sys.argv[0]).name in (_PLUGIN, _PLUGIN_COMPLETION)


def installs_completion() -> bool:
    """Whether the command line has options that install its completion in a shell: kubectl completes its plugins."""
    return Path(sys.argv[0]).name != _PLUGIN


def program_name() -> str:
    """What a person types: `dynalign`, or `kubectl dynalign`."""
    return f"kubectl {PROGRAM}" if is_plugin() else PROGRAM


def find_local(choice: RunChoice) -> Path | None:
    """The working folder that is meant; None if it is a run of the cluster.

    Exits with a sentence if it is a file that is no run file, or if nothing is named and there is not exactly one run.
    """
    run = choice.run
    if choice.names_cluster:
        return None
    if run is None:
        return None if is_plugin() else find_workdir(None)
    path = Path(run)
    if "/" in run or run.endswith(_FILES) or run in (".", ".."):
        return find_workdir(path)
    if is_plugin():
        return None
    if path.is_dir() or path.is_file():
        return find_workdir(path)
    return RUNS / run if (RUNS / run / "run.json").is_file() else None


@asynccontextmanager
async def open_run(choice: RunChoice) -> AsyncIterator[tuple["RunSource", str]]:
    """The source of the run that is meant, and its name there. Raises ClusterError."""
    folder = find_local(choice)
    if folder is not None:
        from dynalign_operator.clusters.local.run_source import LocalRunSource

        yield LocalRunSource({str(folder): folder}), str(folder)
        return
    from dynalign_operator.clusters.run_source import NoClusterError, RunNotFoundError

    try:
        async with choice.open_cluster() as source:
            yield source, choice.run or await _only_run(source)
    except NoClusterError as error:
        if choice.names_cluster or is_plugin():
            raise
        raise RunNotFoundError(
            f"there is no run {choice.run} on this machine (no such folder, and no {RUNS / str(choice.run)}), and no "
            f"cluster to look for it: {error}"
        ) from error


async def _only_run(source: "RunSource") -> str:
    """Name of the only run. Raises RunNotFoundError."""
    from dynalign_operator.clusters.run_source import RunNotFoundError

    names = [run.name for run in (await source.list_runs()).runs]
    if len(names) != 1:
        raise RunNotFoundError(f"name a run; the namespace has {', '.join(names) or 'none'}.")
    return names[0]


def run_command(work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run a command to its end; errors of the place where runs are become a sentence and an exit code."""
    from dynalign_operator.clusters.errors import ClusterError

    try:
        code = asyncio.run(work())
    except ClusterError as error:
        say(str(error), err=True)
        code = int(error.exit_code)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `dynalign logs | head`
        sys.stdout = None
        code = 0
    if code:
        raise typer.Exit(code)
