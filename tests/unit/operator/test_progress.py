"""Reading progress from pods that may be silent, or mean harm: what is read, how often, and in which order."""

import asyncio
import gzip
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dynalign_contract.pod_paths import METRICS_PORT
from dynalign_contract.stages import Stage
from dynalign_contract.telemetry import MOST_BYTES, MOST_SAMPLES, StageSeries
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.progress import ProgressReader
from dynalign_operator.clusters.kubernetes.progress_book import SILENCE, ProgressBook
from dynalign_operator.clusters.kubernetes.progress_source import Read, by_api_proxy, by_pod_ip
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.clusters.stage_metrics import LiveMetrics, parse_metrics
from dynalign_operator.manifests.labels import JOB_NAME, JobLabels, job_labels
from support.recording_api import client_of

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = f"{StageSeries.DONE} 3.0\n{StageSeries.TOTAL} 12.0\n".encode()


def owned(name: str, namespace: str, owner: str, **more: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}", **more}
    return {"metadata": {**metadata, "ownerReferences": [{"uid": owner, "controller": True}]}}


def put_run(
    store: Store, namespace: str, name: str, addresses: list[str], parallelism: int | None = None
) -> list[Object]:
    """A run, its training Job, and a running pod at each address."""
    labels = job_labels(JobLabels(name, Stage.TRAIN, 0, 1))
    run = {"metadata": {"name": name, "namespace": namespace, "uid": f"uid-of-{namespace}-{name}"}}
    job = owned(f"{name}-train", namespace, run["metadata"]["uid"], labels=labels)
    job["spec"] = {"parallelism": parallelism or len(addresses)}
    store.put(Kind.RUN, run)
    store.put(Kind.JOB, job)
    pods = []
    for index, address in enumerate(addresses):
        pod = owned(f"{name}-{index}", namespace, job["metadata"]["uid"], labels={**labels, JOB_NAME: f"{name}-train"})
        pod |= {"spec": {}, "status": {"phase": "Running", "podIP": address}}
        store.put(Kind.POD, pod)
        pods.append(pod)
    return pods


@dataclass
class Reading:
    """A reader whose pods answer by script, and what was asked."""

    store: Store
    answer: Callable[[Object], bytes | None] = lambda pod: GOOD
    asked: list[str] = field(default_factory=list)
    enqueued: list[RunKey] = field(default_factory=list)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.book = ProgressBook()
        self.reader = ProgressReader(self.store, self.book, self._read, self.enqueued.append, lambda: self.now)

    async def _read(self, pod: Object) -> bytes:
        self.asked.append(pod["metadata"]["name"])
        answer = self.answer(pod)
        if answer is None:
            raise TimeoutError
        return answer

    def round(self, seconds: float = 10) -> list[str]:
        """One round; the names of the pods that it asked."""
        self.asked.clear()
        self.now += timedelta(seconds=seconds)
        asyncio.run(self.reader.read_round())
        return list(self.asked)


@asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server at the metrics port of an address of its own in 127.0.0.0/8."""
    address = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.{random.randint(1, 250)}"
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, address, METRICS_PORT, backlog=1024)
    try:
        yield address
    finally:
        server.close()
        for task in tasks:
            task.cancel()


@pytest.mark.slow
def test_three_hundred_silent_pods_keep_nobody_waiting() -> None:
    """The one that answers is read in every round; those that do not are asked less and less often."""
    silent: Counter[int] = Counter()
    answered: Counter[int] = Counter()
    number = 0

    async def say_nothing(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        silent[number] += 1
        await asyncio.Event().wait()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            answered[number] += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD))

    async def story() -> None:
        nonlocal number
        async with (
            listening(say_nothing) as nowhere,
            listening(answer) as somewhere,
            aiohttp.ClientSession() as session,
        ):
            store, book = Store(), ProgressBook()
            for index in range(300):
                put_run(store, f"team-{index % 3}", f"silent-{index}", [nowhere])
            put_run(store, "team-0", "zz-well", [somewhere])
            reader = ProgressReader(store, book, by_pod_ip(session), lambda run: None, lambda: NOW)
            for number in range(1, 7):  # noqa: B007 - the servers count by it
                await reader.read_round()
            assert book.progress.keys() == {RunKey("team-0", "zz-well-train")}

    asyncio.run(story())
    assert [answered[n] for n in range(1, 7)] == [1] * 6
    assert [silent[n] for n in range(1, 7)] == [300, 0, 300, 0, 0, 0]


def test_a_pod_that_answers_again_is_asked_every_round_again() -> None:
    store = Store()
    put_run(store, "n", "r", ["x"])
    reading = Reading(store, lambda pod: None)
    rounds = [bool(reading.round()) for _ in range(40)]
    assert rounds[0]
    assert sum(rounds) <= 6, "the pauses double"
    assert sum(rounds[8:]) >= 1, "it is never given up"
    reading.answer = lambda pod: GOOD
    while not reading.round():
        pass
    assert all(reading.round() for _ in range(3))


def test_namespaces_take_turns_and_those_that_answer_come_first() -> None:
    store = Store()
    for index in range(50):
        put_run(store, "crowded", f"r{index:02d}", ["x"])
    put_run(store, "small", "s", ["x"])
    reading = Reading(store, lambda pod: None if pod["metadata"]["namespace"] == "crowded" else GOOD)
    assert "s-0" in reading.round()[:2]
    reading.round()
    assert reading.round()[0] == "s-0"


def test_only_pods_that_the_run_s_own_jobs_control_are_asked() -> None:
    store = Store()
    (own,) = put_run(store, "n", "r", ["x"])

    def put(name: str, **change: Any) -> None:
        pod = {
            **own,
            "metadata": {**own["metadata"], "name": name, "uid": name, **change.pop("metadata", {})},
            **change,
        }
        store.put(Kind.POD, pod)

    put("a-bare-pod", metadata={"ownerReferences": []})
    put("a-pod-of-another-job", metadata={"ownerReferences": [{"uid": "other", "controller": True}]})
    put("a-pod-that-ended", status={"phase": "Succeeded", "podIP": "x"})
    assert Reading(store).round() == ["r-0"]
    put_run(store, "n", "q", ["x"])
    (node,) = put_run(store, "n", "node", ["x"])
    store.put(Kind.POD, {**node, "spec": {"hostNetwork": True}})
    assert sorted(Reading(store).round()) == ["q-0", "r-0"]


def test_a_job_of_an_earlier_run_of_the_name_is_not_asked() -> None:
    store = Store()
    put_run(store, "n", "r", ["x"])
    store.put(Kind.RUN, {"metadata": {"name": "r", "namespace": "n", "uid": "a new one"}})
    assert Reading(store).round() == []


def test_a_job_is_asked_through_no_more_pods_than_it_runs() -> None:
    store = Store()
    put_run(store, "n", "r", ["x"] * 40, parallelism=4)
    assert len(Reading(store).round()) == 4


def test_a_pod_that_misses_a_round_is_no_progress_of_its_job() -> None:
    store = Store()
    put_run(store, "n", "r", ["a", "b"])
    reading = Reading(store)
    reading.round()
    job, first = RunKey("n", "r-train"), reading.now
    assert (reading.book.progress[job].progress.done, reading.enqueued) == (6, [RunKey("n", "r")])
    reading.answer = lambda pod: GOOD if pod["status"]["podIP"] == "a" else None
    reading.round()
    heard = reading.book.progress[job]
    assert (heard.progress.done, heard.changed, heard.answered) == (6, first, reading.now)
    assert len(reading.enqueued) == 1


def test_an_answer_after_a_silence_is_worth_a_look_though_it_is_the_same() -> None:
    store = Store()
    put_run(store, "n", "r", ["a"])
    reading = Reading(store)
    reading.round()
    reading.round()
    assert len(reading.enqueued) == 1
    reading.round(seconds=SILENCE.total_seconds() + 1)
    assert len(reading.enqueued) == 2


class Nasty:
    """Answers every request with a head and as much of a body as the client takes."""

    def __init__(self, head: str, body: bytes, *, endless: bool = False) -> None:
        self._answer = f"HTTP/1.1 {head}\r\n\r\n".encode()
        self._body, self._endless = body, endless
        self.sent = self.requests = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        writer.write(self._answer)
        while True:
            for at in range(0, len(self._body), 65_536):
                writer.write(self._body[at : at + 65_536])
                await writer.drain()
                self.sent += len(self._body[at : at + 65_536])
            if not self._endless:
                return


def gzip_bomb() -> Nasty:
    packed = gzip.compress(b"dynalign_stage_done 1\n" + bytes(256 * 2**20), compresslevel=1)
    return Nasty(f"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}", packed)


def many_samples() -> Nasty:
    text = "".join(f'dynalign_stage_metric{{name="m{index}"}} 1\n' for index in range(300_000)).encode()
    return Nasty(f"200 OK\r\nContent-Length: {len(text)}", text)


NASTY: dict[str, Callable[[], Nasty]] = {
    "endless": lambda: Nasty("200 OK\r\nConnection: close", GOOD * 4096, endless=True),
    "endless line": lambda: Nasty("200 OK\r\nConnection: close", b"a" * 65_536, endless=True),
    "gzip bomb": gzip_bomb,
    "samples": many_samples,
    "redirect": lambda: Nasty("302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0", b""),
    "redirect to another host": lambda: Nasty("307 T\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0", b""),
    "error": lambda: Nasty(f"500 No\r\nContent-Length: {len(GOOD)}", GOOD),
    "says less than it sends": lambda: Nasty(
        "200 OK\r\nTransfer-Encoding: chunked", b"ffffff\r\n" + b"a" * 2**20, endless=True
    ),
}


@pytest.mark.parametrize("through_api_server", [False, True], ids=["pod", "proxy"])
@pytest.mark.parametrize("kind", NASTY)
def test_what_a_pod_answers_costs_no_more_than_its_64_kib(kind: str, through_api_server: bool, tmp_path: Path) -> None:
    """Asserted on what has left the server: the operator has stopped reading, whatever else would have come."""

    async def ask(read: Read, address: str) -> None:
        pod = {"metadata": {"name": "p", "namespace": "n"}, "status": {"podIP": address}}
        with pytest.raises((ClusterError, TimeoutError, aiohttp.ClientError)):
            await read(pod)

    async def story() -> Nasty:
        nasty = NASTY[kind]()
        async with listening(nasty) as address:
            if through_api_server:
                async with client_of(tmp_path, f"http://{address}:{METRICS_PORT}") as api:
                    await ask(by_api_proxy(api), address)
            else:
                async with aiohttp.ClientSession() as session:
                    await ask(by_pod_ip(session), address)
        return nasty

    nasty = asyncio.run(story())
    assert nasty.requests == 1, "no redirect is followed"
    assert nasty.sent < 16 * 2**20, "what the kernel's buffers hold on loopback"


@pytest.mark.parametrize("through_api_server", [False, True], ids=["pod", "proxy"])
def test_what_is_short_and_plain_is_read(through_api_server: bool, tmp_path: Path) -> None:
    body = GOOD + b"x" * (MOST_BYTES - len(GOOD))

    async def story() -> bytes:
        pod: Object = {"metadata": {"name": "p", "namespace": "n"}}
        async with listening(Nasty(f"200 OK\r\nContent-Length: {len(body)}", body)) as address:
            pod["status"] = {"podIP": address}
            if through_api_server:
                async with client_of(tmp_path, f"http://{address}:{METRICS_PORT}") as api:
                    return await by_api_proxy(api)(pod)
            async with aiohttp.ClientSession() as session:
                return await by_pod_ip(session)(pod)

    assert asyncio.run(story()) == body


def test_only_the_series_of_a_stage_are_read_and_no_more_than_there_can_be() -> None:
    foreign = "".join(f"other_{index} 1\n" for index in range(5_000))
    names = "".join(f'{StageSeries.METRIC}{{name="m{index}"}} 1\n' for index in range(5_000))
    reading = parse_metrics(f"{foreign}{StageSeries.DONE} 4\n{StageSeries.TOTAL}_not 9\n{names}")
    assert (reading.done, reading.total) == (4, 0)
    assert len(reading.metrics) <= MOST_SAMPLES


@pytest.mark.parametrize("number", ["NaN", "+Inf", "-Inf", "1e300", "-1e308"])
def test_numbers_that_are_none_are_left(number: str) -> None:
    """NaN differs from itself: a pod that says it would make progress for ever."""
    text = f'{StageSeries.DONE} {number}\n{StageSeries.METRIC}{{name="kl"}} {number}\n'
    assert parse_metrics(text) == parse_metrics(text) == LiveMetrics()


@pytest.mark.parametrize(
    "text",
    [
        "\0",
        '{name="',
        'dynalign_stage_metric{name="' + "a" * 10_000 + '"} 1',
        "dynalign_stage_done{",
        "dynalign_stage_done x",
        "\u2028" * 9,
    ],
)
def test_junk_is_refused_or_left(text: str) -> None:
    with suppress(ValueError):
        assert parse_metrics(text) == LiveMetrics()
