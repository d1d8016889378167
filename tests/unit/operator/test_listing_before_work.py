"""The comparison with the API server: in pages, metadata only, and before any run is worked on."""

import asyncio
from typing import Any

import pytest

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.api import KubeApi
from dynalign_operator.clusters.kubernetes.resync import Resync
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.metrics import OperatorMetrics
from dynalign_operator.service import main as service
from dynalign_operator.service.main import Operator
from dynalign_operator.service.settings import OperatorSettings
from support.memory_api import MemoryApi
from support.player import run_object

RUNS = "/apis/dynalign.io/v1alpha1/namespaces/team/alignmentruns"
OBJECTS = [
    {"metadata": {"name": f"r{index}", "namespace": "team", "uid": str(index), "resourceVersion": "1"}}
    for index in range(5)
]


class Pages(KubeApi):
    """Lists two runs a page; single ones are there, too. Kinds without objects have `items: null`."""

    def __init__(self) -> None:
        super().__init__(None)
        self.lists: list[str] = []

    async def get(self, path: Any, *, metadata_only: bool = False) -> dict[str, Any] | None:
        if "fieldSelector" in path:
            name = path.rpartition("%3D")[2]
            return {"items": [{**thing, "spec": {}} for thing in OBJECTS if thing["metadata"]["name"] == name]}
        assert metadata_only, "whole objects are read one by one"
        self.lists.append(path)
        if "alignmentruns" not in path:
            return {"items": None}
        begin = int(path.rpartition("continue=")[2]) if "continue=" in path else 0
        following = str(begin + 2) if begin + 2 < len(OBJECTS) else ""
        return {"metadata": {"continue": following}, "items": OBJECTS[begin : begin + 2]}


def test_every_page_is_listed_and_what_no_watch_told_is_read() -> None:
    async def main() -> None:
        store, told, api = Store(), list[RunKey](), Pages()
        resync = Resync(api, store, (), told.append, lambda _: None)
        assert [await resync._compare(kind, 0.0) for kind in Kind] == [0, 0, 0]
        assert [key.name for key in store.runs()] == ["r0", "r1", "r2", "r3", "r4"]
        assert len(told) == 5
        assert len(api.lists) == 3 + 2
        assert all("limit=500" in path for path in api.lists)

    asyncio.run(main())


def test_no_run_is_worked_on_before_every_kind_has_been_listed() -> None:
    """Else a Job that is not known yet, but writes, would be made a second time."""

    async def main() -> None:
        api = MemoryApi(Store())
        operator = Operator(OperatorSettings(), api, OperatorMetrics())
        api.store = operator._store
        api.seed(RUNS, run_object("r", "team", model={"uri": "bundled://x"}))
        operator._queue.add(RunKey("team", "r"))
        working = asyncio.create_task(operator._work())
        for _ in range(100):
            await asyncio.sleep(0)
        assert api.requests == []
        operator._resync.complete.set()
        while "r-fetch-a1" not in api.names("jobs"):
            assert not working.done()
            await asyncio.sleep(0)
        working.cancel()

    asyncio.run(main())


def test_a_run_that_cannot_be_read_has_no_series_and_the_others_have_theirs() -> None:
    async def main() -> None:
        api = MemoryApi(Store())
        operator = Operator(OperatorSettings(), api, OperatorMetrics())
        api.store = operator._store
        for name, status in (("future", {"phase": "Hibernating"}), ("well", {"phase": "Running"})):
            api.seed(RUNS, {**run_object(name, "team", model={"uri": "bundled://x"}), "status": status})
        for _ in range(2):
            text = (await operator.write_metrics()).decode()
            assert 'dynalign_run_phase{namespace="team",phase="Running",run="well"} 1.0' in text
            assert 'run="future"' not in text

    asyncio.run(main())


def test_a_fault_of_our_own_costs_one_run_its_series_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def known_run(operator: Operator, key: RunKey, live: Any) -> Any:
        if key.name == "odd":
            raise KeyError("judge_left_out/outside")
        return read(operator, key, live)

    read = Operator._known_run
    monkeypatch.setattr(Operator, "_known_run", known_run)

    async def main() -> None:
        api = MemoryApi(Store())
        operator = Operator(OperatorSettings(), api, OperatorMetrics())
        api.store = operator._store
        for name in ("odd", "well"):
            run = run_object(name, "team", model={"uri": "bundled://x"})
            api.seed(RUNS, {**run, "status": {"phase": "Running"}})
        text = (await operator.write_metrics()).decode()
        assert 'run="well"' in text
        assert 'run="odd"' not in text

    asyncio.run(main())
    assert "run odd in namespace team" in caplog.text


def test_a_scrape_never_waits_for_thousands_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a start no run has series yet; they are computed ahead, and a scrape gives those that there are."""

    async def main() -> None:
        api = MemoryApi(Store())
        operator = Operator(OperatorSettings(), api, OperatorMetrics())
        api.store = operator._store
        for number in range(20):
            run = run_object(f"r{number}", "team", model={"uri": "bundled://x"})
            api.seed(RUNS, {**run, "status": {"phase": "Running"}})
        monkeypatch.setattr(service, "SCRAPE_SECONDS", 0.0)
        assert (await operator.write_metrics()).decode().count("dynalign_run_phase{") < 20
        computing = asyncio.create_task(operator._refresh_series())
        operator._resync.complete.set()
        while (await operator.write_metrics()).decode().count("dynalign_run_phase{") < 20:
            assert not computing.done()
            await asyncio.sleep(0.01)  # between two looks at it
        computing.cancel()

    asyncio.run(main())
