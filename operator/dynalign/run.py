"""A run as a Python object: start it, wait for it, read what it has measured and written."""

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from dynalign.blocking import finish
from dynalign.errors import RunFailedError
from dynalign.numbers import plot_of, table_of
from dynalign.process import RunProcess, start_process
from dynalign.samples import Sample, samples_of
from dynalign_contract.layout import RunLayout
from dynalign_operator.api.status import AlignmentRunStatus, Phase
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.cli.drive import stalled_message
from dynalign_operator.cli.load import load_run_file, read_text, require_keys, require_objective
from dynalign_operator.cli.report import make_report
from dynalign_operator.cli.run_choice import RunChoice
from dynalign_operator.cli.terminal import open_console
from dynalign_operator.cli.watch import Looks, end_code
from dynalign_operator.cli.watch_views import plain_view
from dynalign_operator.cli.workdirs import RUNS
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.local.run_source import LocalRunSource
from dynalign_operator.clusters.run_source import RunNotFoundError, RunSnapshot, RunSource
from dynalign_operator.planning.run_facts import facts_of
from dynalign_operator.runfile.run_file import RunFile, parse_run_file
from dynalign_report.facts import HeldOutPrompt, ReportedRun

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

_LOOK_EVERY_SECONDS: Final = 1.0
Section = Literal["worked", "why", "judge", "cost"]
"""Sections of the report: did it work, why, can the judge be trusted, what did it cost."""


@dataclass
class Run:
    """An AlignmentRun in a file, in a working folder of this machine, or in a cluster.

    Methods block, in a notebook too. They raise RunFileError for a file that is wrong, ClusterError for a folder or
    a cluster that cannot be read, both with what to do.
    """

    name: str
    file: Path | None = None
    """The run file; None for a run that was opened."""
    settings: Sequence[str] = ()
    """FIELD=VALUE that take the place of the file's."""
    folder: Path | None = None
    """Working folder; None for a run of a cluster, and before the start."""
    choice: RunChoice | None = None
    """The cluster; None for a run of this machine, and before the start."""
    process: RunProcess | None = field(default=None, repr=False)
    """What `start` has started on this machine."""

    @classmethod
    def from_file(cls, file: str | Path, changes: Mapping[str, Any] | None = None) -> Self:
        """A run that is yet to be started. `changes` are fields and their values, such as `{"spec.iterations": 2}`.

        Raises RunFileError.
        """
        settings = tuple(f"{name}={json.dumps(value)}" for name, value in (changes or {}).items())
        found = parse_run_file(read_text(Path(file)), settings)
        return cls(found.run.metadata.name, file=Path(file), settings=settings)

    @classmethod
    def open(
        cls,
        run: str | Path,
        *,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: str | Path | None = None,
    ) -> Self:
        """A run that exists: a working folder, the name of one in `runs`, or with `namespace` a run of a cluster.

        The context is the kubeconfig's current one by default. Raises ClusterError.
        """
        choice = _choose(str(run), namespace, context, kubeconfig)
        if choice.names_cluster:
            opened = cls(str(run), choice=choice)
        else:
            folder = next((path for path in (Path(run), RUNS / run) if (path / "run.json").is_file()), None)
            if folder is None:
                raise RunNotFoundError(
                    f"there is no folder {run} or {RUNS / run} with a run; a cluster needs a namespace."
                )
            opened = cls(str(folder), folder=folder)
        opened.name = opened.object.metadata.name
        return opened

    def start(
        self,
        where: Literal["local", "cluster"] = "local",
        *,
        workdir: str | Path | None = None,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: str | Path | None = None,
    ) -> Self:
        """Start the run, or go on with it, on this machine or in a cluster, and return at once.

        On this machine it is a process that goes on without this session, in the folder `workdir` (default: runs/NAME).
        In a cluster the run and its ConfigMaps are created in `namespace`, by default the file's, then the context's.
        Raises RunFileError, RunFailedError where the process ends at once, ClusterError.
        """
        if self.file is None:
            raise ValueError(f"{self.name} was opened, not read from a file; start it by Run.from_file(...).start()")
        if where == "local":
            require_keys(require_objective(load_run_file(self.file, self.settings)), os.environ)
            folder = Path(workdir) if workdir is not None else RUNS / self.name
            self.process = start_process(self.file, self.settings, folder)
            self.folder, self.choice = folder, None
            return self
        parsed = parse_run_file(read_text(self.file), self.settings)
        metadata = parsed.run.metadata
        wanted = namespace or (metadata.namespace if "namespace" in metadata.model_fields_set else None)
        choice = _choose(self.name, wanted, context, kubeconfig)
        finish(_create(choice, parsed))
        self.folder, self.choice = None, choice
        return self

    @property
    def object(self) -> AlignmentRun:
        """The run as it is stored now: specification and status."""
        return finish(self._look()).run

    @property
    def status(self) -> AlignmentRunStatus:
        """The status now."""
        return self.object.status

    def wait(self, *, progress: bool = False, timeout: float | None = None) -> AlignmentRunStatus:
        """The status once the run has ended. `progress` prints a line for each event; `timeout` is in seconds.

        Raises RunFailedError when it ends otherwise than Succeeded or Suspended, TimeoutError.
        """
        return finish(self._wait(progress=progress, timeout=timeout))

    def stop(self) -> None:
        """Stop the process that `start` has started; what it has finished is kept, and `start` goes on from there."""
        if self.process is None:
            raise ValueError(f"{self.name} was not started here; suspend a run of a cluster by spec.suspend")
        self.process.stop()

    def samples(self, iteration: int | None = None) -> list[Sample]:
        """Candidate answers with rewards, aspects and advantages, of one iteration (0-based) or of all."""
        return list(samples_of(self._reported(), iteration))

    def held_out(self) -> tuple[HeldOutPrompt, ...]:
        """The held-out prompts with the base model's answers and those after each evaluated iteration."""
        return self._reported().held_out

    def table(self) -> "pandas.DataFrame":
        """A row for each iteration, a column `stage.metric` for each metric, such as `evaluate.win_rate`.

        A run of a cluster has the latest iterations that its status keeps.
        """
        return table_of(self._numbers().stages)

    def plot(self, section: Section = "worked") -> "Figure":
        """The report's plots of one section as a Plotly figure: `worked`, `why`, `judge` or `cost`."""
        run = self.object
        found = (
            self._reported() if self.folder is not None else ReportedRun(self.name, facts_of(run), facts_of(run).stages)
        )
        return plot_of(found, section)

    def report(self, file: str | Path | None = None) -> Path:
        """Write the report, by default report.html in the working folder, and return its path."""
        folder = self._files()
        target = Path(file) if file is not None else RunLayout(folder).report
        make_report(target, [(folder, self.object)])
        return target

    def _files(self) -> Path:
        """The working folder. Raises ClusterError for a run whose files lie elsewhere."""
        if self.folder is None:
            raise ClusterError(f"the files of {self.name} are not on this machine: copy its folder from its volume.")
        return self.folder

    def _reported(self) -> ReportedRun:
        """What the run has left in its working folder."""
        from dynalign_report.folder import read_reported_run

        return read_reported_run(self._files(), facts_of(self.object))

    def _numbers(self) -> ReportedRun:
        """What the run has measured: by its artifacts, or where these are elsewhere by its status."""
        if self.folder is not None:
            return self._reported()
        facts = facts_of(self.object)
        return ReportedRun(self.name, facts, facts.stages)

    def _source(self) -> "AbstractAsyncContextManager[RunSource]":
        if self.choice is not None:
            return self.choice.open_cluster()
        if self.folder is None:
            raise RunNotFoundError(f"{self.name} has not been started: call start(). Run.open(...) finds what exists.")
        return _opened(LocalRunSource({self._key: self.folder}))

    @property
    def _key(self) -> str:
        """The name by which the source knows the run."""
        return self.name if self.choice is not None else str(self.folder)

    async def _look(self) -> RunSnapshot:
        async with self._source() as source:
            return await source.get(self._key)

    async def _wait(self, *, progress: bool, timeout: float | None) -> AlignmentRunStatus:
        show = plain_view(open_console())
        end = None if timeout is None else time.monotonic() + timeout
        async with self._source() as source:
            looks = Looks(source, self._key)
            while True:
                snapshot, events = await looks.look()
                if progress:
                    show(snapshot, events, datetime.now().astimezone())
                if end_code(snapshot) is not None:
                    break
                if end is not None and time.monotonic() > end:
                    raise TimeoutError(f"{self.name} goes on after {timeout:.0f} s: {snapshot.run.status.progress}")
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
        status = snapshot.run.status
        if status.phase not in (Phase.SUCCEEDED, Phase.SUSPENDED):
            raise RunFailedError(stalled_message(status) or f"{self.name} stopped at {status.progress or 'its start'}")
        return status


def _choose(run: str, namespace: str | None, context: str | None, kubeconfig: str | Path | None) -> RunChoice:
    return RunChoice(run, namespace, context, None if kubeconfig is None else Path(kubeconfig))


@asynccontextmanager
async def _opened(source: LocalRunSource) -> Any:
    yield source


async def _create(choice: RunChoice, parsed: RunFile) -> None:
    async with choice.open_cluster() as source:
        await source.create(parsed)
