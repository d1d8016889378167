"""The work queue: once however often, one worker a key, back when due, and a failure is not the end."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from dynalign_operator.service import workqueue
from dynalign_operator.service.workqueue import PutOffError, WorkQueue


def run(scenario: Callable[[WorkQueue[str]], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(scenario(WorkQueue()), 60)

    asyncio.run(main())


def test_a_key_that_is_added_again_and_again_is_worked_on_once() -> None:
    async def scenario(queue: WorkQueue[str]) -> None:
        seen: list[str] = []

        async def handle(key: str) -> None:
            seen.append(key)

        for key in ("a", "b", "a", "a"):
            queue.add(key)
        assert queue.depth == 2
        worker = asyncio.create_task(queue.work(handle))
        while len(seen) < 2 or queue.depth:
            await asyncio.sleep(0)
        worker.cancel()
        assert seen == ["a", "b"]

    run(scenario)


def test_what_is_added_during_the_work_is_worked_on_after_it_and_never_beside_it() -> None:
    async def scenario(queue: WorkQueue[str]) -> None:
        at_work, most, times = 0, 0, 0
        done = asyncio.Event()

        async def handle(_: str) -> None:
            nonlocal at_work, most, times
            at_work += 1
            most = max(most, at_work)
            times += 1
            if times == 1:
                queue.add("a")
                queue.add("a")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            at_work -= 1
            if times == 2:
                done.set()

        queue.add("a")
        workers = [asyncio.create_task(queue.work(handle)) for _ in range(3)]
        await done.wait()
        for worker in workers:
            worker.cancel()
        assert (most, times, queue.depth) == (1, 2, 0)

    run(scenario)


def test_the_earliest_wish_counts() -> None:
    async def scenario(queue: WorkQueue[str]) -> None:
        loop = asyncio.get_running_loop()
        started, seen = loop.time(), []
        done = asyncio.Event()

        async def handle(key: str) -> None:
            seen.append((key, loop.time() - started))
            if len(seen) == 2:
                done.set()

        queue.add_after("late", 0.2)
        queue.add_after("a", 3600)
        queue.add_after("a", 0.05)
        worker = asyncio.create_task(queue.work(handle))
        await done.wait()
        worker.cancel()
        assert [key for key, _ in seen] == ["a", "late"]
        assert seen[0][1] >= 0.05
        assert seen[1][1] >= 0.2

    run(scenario)


def test_a_failure_comes_back_after_a_pause_that_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue, "FIRST_PAUSE_SECONDS", 0.01)

    async def scenario(queue: WorkQueue[str]) -> None:
        loop = asyncio.get_running_loop()
        times: list[float] = []
        done = asyncio.Event()

        async def handle(_: str) -> None:
            times.append(loop.time())
            if len(times) < 4:
                raise RuntimeError("not yet")
            done.set()

        queue.add("a")
        worker = asyncio.create_task(queue.work(handle))
        await done.wait()
        worker.cancel()
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert [pause >= least for pause, least in zip(pauses, (0.01, 0.02, 0.04), strict=True)] == [True] * 3

    run(scenario)


def test_pauses_begin_anew_when_something_else_is_in_the_way(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever removes one obstacle after the other does not wait longer for each."""

    async def scenario(queue: WorkQueue[str]) -> None:
        met = iter(["claim", "claim", "", "claim", "service"])
        done = asyncio.Event()

        async def handle(_: str) -> None:
            obstacle = next(met, None)
            if obstacle is None:
                done.set()
                return
            raise PutOffError("in the way", obstacle)

        queue.add("a")
        worker = asyncio.create_task(queue.work(handle))
        await done.wait()
        worker.cancel()

    with caplog.at_level("INFO", logger="dynalign.queue"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(workqueue, "FIRST_PAUSE_SECONDS", 0.001)
        run(scenario)
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [1, 2, 3, 4, 1]


def test_the_age_is_that_of_the_key_that_has_waited_longest() -> None:
    async def scenario(queue: WorkQueue[str]) -> None:
        assert queue.age_seconds == 0.0
        queue.add("a")
        while not (before := queue.age_seconds):
            await asyncio.sleep(0)
        queue.add("b")
        queue.add("a")
        assert queue.age_seconds >= before > 0.0

    run(scenario)
