"""How the live page looks at runs: at its pace, in folders that come and go, and at logs as they grow."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.local.remembered import RememberedRuns
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.clusters.run_source import LogLine, LogOrigin
from dynalign_operator.planning.observed import Step
from dynalign_operator.ui.local_runs import LocalRuns
from dynalign_operator.ui.log_stream import MAX_LINE, MOST_AT_ONCE, stream_lines
from dynalign_operator.ui.paced import LOOK_EVERY_SECONDS, Paced
from dynalign_operator.ui.places import Places
from support.live_runs import a_live_run

ORIGIN = LogOrigin("r-i000-train-a1", Step(Stage.TRAIN, 0), 1)


def test_many_pages_share_one_look() -> None:
    looks: list[int] = []
    times = iter([0.0, 0.0, 1.0, LOOK_EVERY_SECONDS - 0.1, LOOK_EVERY_SECONDS, 10.0, 12.0])

    async def look() -> int:
        looks.append(1)
        return len(looks)

    async def story() -> None:
        paced = Paced(look, lambda: next(times))
        assert [await paced.get() for _ in range(3)] == [1, 1, 1]
        assert await paced.get() == 2  # which takes from 1.5 to 10
        assert await paced.get() == 2  # and is followed by a long rest

    asyncio.run(story())
    assert len(looks) == 2


def test_a_look_that_fails_is_made_again() -> None:
    answers: Iterator[ClusterError | str] = iter([ClusterError("away"), "there"])

    async def look() -> str:
        answer = next(answers)
        if isinstance(answer, ClusterError):
            raise answer
        return answer

    async def story() -> None:
        paced = Paced(look)
        with pytest.raises(ClusterError, match="away"):
            await paced.get()
        assert await paced.get() == "there"

    asyncio.run(story())


def test_a_run_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    live, remembered, workdir = a_live_run("r", tmp_path / "r"), RememberedRuns(), Workdir(tmp_path / "r")
    assert remembered.read(workdir) is None
    live.until(Stage.JUDGE, 0)
    first = remembered.read(workdir)
    assert first is not None
    assert remembered.read(workdir) is first
    live.until(Stage.TRAIN, 0)
    second = remembered.read(workdir)
    assert second is not None
    assert (first.status.stage, second.status.stage) == (Stage.JUDGE, Stage.TRAIN)
    workdir.run_file.unlink()
    assert remembered.read(workdir) is None


def test_folders_that_come_and_go_are_found(tmp_path: Path) -> None:
    a_live_run("a", tmp_path / "runs" / "a").until(Stage.FETCH)
    a_live_run("b", tmp_path / "elsewhere").until(Stage.FETCH)
    local = LocalRuns([tmp_path / "runs", tmp_path / "elsewhere", tmp_path / "nowhere"])
    assert [run.name for run in asyncio.run(local.list_runs()).runs] == ["a", "b"]
    a_live_run("c", tmp_path / "runs" / "c").until(Stage.FETCH)
    (tmp_path / "runs" / "a" / "run.json").write_text("{")
    found = asyncio.run(local.list_runs())
    assert [run.name for run in found.runs] == ["c", "b"]
    assert "is not a run that this version of dynalign can read" in found.notes[0]


@pytest.mark.parametrize("key", ["local:/etc", "local:../r", "cluster:team/r", "nonsense", "", "local:runs/r/../r"])
def test_only_the_runs_that_are_listed_are_looked_at(tmp_path: Path, key: str) -> None:
    a_live_run("r", tmp_path / "runs" / "r").until(Stage.FETCH)
    places = Places(LocalRuns([tmp_path / "runs"]), None)
    assert asyncio.run(places.look(f"local:{tmp_path / 'runs' / 'r'}")).snapshot.run.metadata.name == "r"
    with pytest.raises(ClusterError, match="there is no such run any more"):
        asyncio.run(Places(LocalRuns([tmp_path / "runs"]), None).look(key))


def events_of(data: list[bytes]) -> list[tuple[str, object]]:
    pairs = (event.decode().strip().split("\n", 1) for event in data if not event.startswith(b":"))
    return [(name.removeprefix("event: "), json.loads(value.removeprefix("data: "))) for name, value in pairs]


async def lines_of(*texts: str) -> AsyncIterator[LogLine]:
    for text in texts:
        yield LogLine(ORIGIN, text)


def test_log_lines_travel_in_bounded_batches_as_plain_text() -> None:
    async def story() -> list[bytes]:
        hostile = ("\x1b[31mred\x1b[0m\r\nevent: end", "x" * (MAX_LINE + 7))
        return [data async for data in stream_lines(lines_of(*hostile, *map(str, range(1000))))]

    sent = asyncio.run(story())
    assert all(len(data) <= MOST_AT_ONCE * 200 + MAX_LINE for data in sent)
    lines = [line for name, found in events_of(sent) for line in found if name == "lines"]  # type: ignore[attr-defined]
    assert [line["text"] for line in lines[2:]] == [str(number) for number in range(1000)]
    assert lines[0] == {
        "heading": "train of iteration 0, attempt 1 (Job r-i000-train-a1)",
        "prefix": "",
        "text": "red\nevent: end",
    }
    assert lines[1]["text"] == "x" * MAX_LINE + " [7 more characters]"


def test_a_silent_log_gives_signs_of_life_and_errors_come_through() -> None:
    async def story() -> list[bytes]:
        said = asyncio.Event()

        async def lines() -> AsyncIterator[LogLine]:
            await said.wait()
            yield LogLine(ORIGIN, "late")
            raise ClusterError("the pod is gone")

        sent: list[bytes] = []

        async def read() -> None:
            async for data in stream_lines(lines(), alive_seconds=0.001):
                sent.append(data)
                said.set()

        with pytest.raises(ClusterError, match="the pod is gone"):
            await read()
        return sent

    sent = asyncio.run(story())
    assert sent[0] == b": alive\n\n"
    assert any(b"late" in data for data in sent)
