"""Where the page's runs are: working folders of this machine and a cluster. The rim that looks at them."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dynalign_operator.cli.decided import describe_sent
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.run_source import (
    ListedRun,
    LogLine,
    LogSelection,
    NotAllowedError,
    RunEvent,
    RunList,
    RunNotFoundError,
    RunSnapshot,
    RunSource,
)
from dynalign_operator.ui.approvals import check_decision
from dynalign_operator.ui.changes import describe_change, plan_change
from dynalign_operator.ui.local_runs import LocalRuns, read_sample_text, report_view
from dynalign_operator.ui.models import ChangeRequest, DecisionRequest
from dynalign_operator.ui.paced import Paced
from dynalign_operator.ui.reported import report_in_cluster
from dynalign_operator.ui.run_keys import RunKey
from dynalign_operator.ui.run_views import Seen

if TYPE_CHECKING:
    from dynalign_operator.clusters.kubernetes.run_source import KubeRunSource

_KEPT: Final = 32
"""Runs whose latest look is kept."""
_NO_RUN: Final = "there is no such run any more; the list has those that there are."


class Places:
    """All runs that the page shows."""

    def __init__(self, local: LocalRuns | None, cluster: "KubeRunSource | None", notes: tuple[str, ...] = ()) -> None:
        self._local, self._cluster, self._notes = local, cluster, notes
        self._listing = Paced(self._list)
        self._seen: OrderedDict[str, Paced[Seen]] = OrderedDict()
        self._last_of_cluster = RunList(())

    async def runs(self) -> RunList:
        """Every run, and what could not be looked at."""
        return await self._listing.get()

    async def look(self, key: str) -> Seen:
        """One run. Raises ClusterError."""
        paced = self._seen.setdefault(key, Paced(lambda: self._look(self._parse(key))))
        self._seen.move_to_end(key)
        while len(self._seen) > _KEPT:
            self._seen.popitem(last=False)
        return await paced.get()

    async def change(self, wish: ChangeRequest) -> str:
        """Carry out a confirmed change; returns what has been done. Raises ClusterError."""
        key = self._parse(wish.key)
        if key.namespace is None or self._cluster is None:
            raise RunNotFoundError("a run of this machine is changed in its file.")
        source = self._cluster.in_namespace(key.namespace)
        run = (await source.get(key.name)).run
        fields = plan_change(run, wish)
        await source.change(run, fields)
        self.expire(wish.key)
        return describe_change(run, fields)

    async def decide(self, wish: DecisionRequest) -> str:
        """Send a confirmed decision as `dynalign approve` does; returns what follows. Raises ClusterError."""
        source, name = self._source(self._parse(wish.key))
        snapshot = await source.get(name)
        awaited = check_decision(snapshot, wish)
        by = await source.decide(snapshot, wish.decision, wish.reason)
        self.expire(wish.key)
        return describe_sent(snapshot, awaited, wish.decision, by)

    async def make_report(self, key: str) -> str:
        """Write the report of a working folder; returns what has been done. Raises ClusterError."""
        seen = await self.look(key)
        if self._local is None or seen.listed.is_cluster:
            raise RunNotFoundError(seen.report.note or _NO_RUN)
        try:
            file = await self._local.make_report(seen.snapshot)
        except ModuleNotFoundError as error:
            raise ClusterError(f"a report needs {error.name}: install dynalign[report].") from error
        except OSError as error:
            raise ClusterError(f"the report cannot be written: {error}.") from error
        self.expire(key)
        return f"{file} is up to date."

    async def logs(self, key: str, wanted: LogSelection, tail: int) -> AsyncIterator[LogLine]:
        """Lines as they come, to the run's end. Raises ClusterError."""
        source, name = self._source(self._parse(key))
        async for line in source.logs(name, wanted, follow=True, tail=tail):
            yield line

    def expire(self, key: str) -> None:
        """Look anew at a run that has been changed, and at the list."""
        self._listing.expire()
        if key in self._seen:
            self._seen[key].expire()

    def _parse(self, text: str) -> RunKey:
        """Raises RunNotFoundError for what is no key, or one of a place that the page does not show."""
        key = RunKey.parse(text)
        if key is None or (self._local if key.namespace is None else self._cluster) is None:
            raise RunNotFoundError(_NO_RUN)
        return key

    def _source(self, key: RunKey) -> tuple[RunSource, str]:
        """The source that has the run, and its name there. A folder is one of those that were found, or none."""
        if key.namespace is not None and self._cluster is not None:
            return self._cluster.in_namespace(key.namespace), key.name
        if self._local is None or key.name not in self._local.find():
            raise RunNotFoundError(_NO_RUN)
        return self._local.source(), key.name

    async def _list(self) -> RunList:
        found: list[ListedRun] = []
        notes = [*self._notes]
        if self._local is not None:
            listed = await self._local.list_runs()
            found += listed.runs
            notes += listed.notes
        if self._cluster is not None:
            try:
                self._last_of_cluster = await self._cluster.list_runs()
            except ClusterError as error:
                notes.append(f"{error} What it showed last is listed." if self._last_of_cluster.runs else str(error))
            else:
                notes += self._last_of_cluster.notes
            found += self._last_of_cluster.runs
        return RunList(tuple(found), tuple(notes))

    async def _look(self, key: RunKey) -> Seen:
        source, name = self._source(key)
        snapshot = await source.get(name)
        notes: list[str] = []
        events: tuple[RunEvent, ...] = ()
        try:
            events = await source.events(snapshot)
        except NotAllowedError as error:
            notes.append(str(error))
        listed = _listed(snapshot, key)
        if key.namespace is not None or self._local is None:
            return Seen(listed, snapshot, events, report=report_in_cluster(snapshot), notes=tuple(notes))
        stages, problems = await self._local.stages(snapshot)
        notes += problems
        report, sample = await asyncio.to_thread(lambda: (report_view(snapshot), read_sample_text(snapshot)))
        return Seen(listed, snapshot, events, stages, report, tuple(notes), sample)


def _listed(snapshot: RunSnapshot, key: RunKey) -> ListedRun:
    run, is_cluster = snapshot.run, key.namespace is not None
    return ListedRun(
        name=run.metadata.name,
        group=key.namespace or str(Path(key.name).parent),
        status=run.status,
        run=run,
        is_cluster=is_cluster,
        is_driven=snapshot.is_driven,
        folder="" if is_cluster else key.name,
    )


def now() -> datetime:
    """The time, in this machine's zone."""
    return datetime.now().astimezone()
