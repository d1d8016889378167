"""At SIGTERM an operator waits for its watches alone."""

import asyncio

import pytest

from dynalign_operator.service import main as service


def test_all_other_tasks_end_before_the_watches() -> None:
    """kopf waits for every task that began after its own, up to five seconds."""

    async def scenario() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def watch() -> None:
            await ended.wait()

        watches = asyncio.create_task(watch(), name=service.WATCHES)
        worker = asyncio.create_task(work(), name="worker 0")
        await begun.wait()
        await service._cancel([watches, worker])
        assert worker.cancelled()
        assert not watches.cancelled()

    asyncio.run(scenario())


def test_watches_that_do_not_end_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_WATCHES_SECONDS", 0.01)

    async def watch() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        watches = asyncio.create_task(watch(), name=service.WATCHES)
        await service._cancel([watches])
        assert watches.cancelled()

    asyncio.run(scenario())
