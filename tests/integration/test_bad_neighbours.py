"""Runs whose pods never answer, answer without end, or whose objective is a bomb: the runs beside them go on."""

import asyncio
import logging
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from dynalign_contract.pod_paths import METRICS_PORT
from dynalign_contract.stages import ITERATION_STAGES
from dynalign_contract.telemetry import MOST_BYTES
from dynalign_operator.clusters.kubernetes.paths import PODS, RUNS, collection_path, object_path
from lab.api_server import start_api_server
from lab.processes import free_port
from support.player import Player, is_completed, run_object, scenario, start_operator, well

pytestmark = pytest.mark.cluster

log = logging.getLogger(__name__)

SILENT: Final = 300
"""Runs whose one pod takes a connection and says nothing."""
LARGEST_RSS_MIB: Final = 512
ITERATIONS: Final = 4
MODEL: Final = {"uri": "bundled://smollm2-135m-instruct"}
BOMB: Final = "a: &a [" + "x, " * 9000 + "x]\nfacets: {b: [" + "*a, " * 10000 + "*a]}\n"
_SOCKET_BUFFERS: Final = 16 << 20
"""Bytes that the kernel takes from a sender although nobody reads them: a generous bound on loopback."""


@dataclass
class Neighbour:
    """A pod's /metrics at an address of its own."""

    address: str
    is_endless: bool
    connections: int = 0
    sent: list[int] = field(default_factory=list)
    """Bytes that each connection took before it was closed."""

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            answer = self.pour if self.is_endless else self.keep_still
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def pour(self, connection: socket.socket) -> None:
        """Send metrics until the other side has had enough."""
        sent = 0
        line = b'dynalign_stage_metric{name="loss"} 1.0\n' * 1000
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
                while True:
                    connection.sendall(line)
                    sent += len(line)
            except OSError:
                self.sent.append(sent)

    def keep_still(self, connection: socket.socket) -> None:
        """Read what is asked and never answer."""
        with connection:
            try:
                while connection.recv(4096):
                    pass
            except OSError:
                return


@contextmanager
def neighbour(address: str, *, is_endless: bool) -> Iterator[Neighbour]:
    """Serve at the port at which pods serve their metrics."""
    told = Neighbour(address, is_endless)
    with socket.create_server((address, METRICS_PORT), backlog=1024) as listener:
        threading.Thread(target=told.serve, args=(listener,), daemon=True).start()
        yield told
        listener.shutdown(socket.SHUT_RDWR)


async def start_at(player: Player, namespace: str, names: list[str], address: str) -> None:
    """Create runs in a namespace and have the first pod of each run at an address."""
    other = Player(player.api, lambda _: address, namespace)
    for name in names:
        await other.create(run_object(name, namespace, model=MODEL, iterations=1))
    running: list[Any] = []
    while len(running) < len(names):
        await other.play()
        pods = await other.items(collection_path(PODS, namespace))
        running = [pod for pod in pods if pod["status"].get("podIP") == address]


async def until_true(check: Any) -> None:
    while not check():
        await asyncio.sleep(0.05)  # between two looks at it


def peak_rss_mib(pid: int) -> float:
    """The largest resident memory of a process until now."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def transitions(port: int) -> dict[str, float]:
    """The operator's own histogram of the seconds between two Jobs of a run."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    found = re.findall(r'^dynalign_stage_transition_seconds_(bucket\{le="[^"]+"\}|count|sum) (\S+)$', text, re.M)
    return {name: float(value) for name, value in found}


def test_a_run_goes_on_beside_silent_pods_an_endless_answer_and_a_bomb(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    port = free_port()
    with (
        start_api_server(tmp_path_factory.mktemp("api-server") / "s") as server,
        neighbour("127.7.0.1", is_endless=False) as silent,
        neighbour("127.7.0.2", is_endless=True) as endless,
        start_operator(server, DYNALIGN_PROGRESS="PodIP", DYNALIGN_METRICS_PORT=str(port)) as operator,
    ):

        async def story(player: Player) -> None:
            bomb = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bomb", "namespace": "default"}}
            assert server.apply({**bomb, "data": {"objective.yaml": BOMB}}).returncode == 0
            for namespace in ("silent", "endless"):
                assert server.kubectl("create", "namespace", namespace).returncode == 0
            await start_at(player, "silent", [f"s{number}" for number in range(SILENT)], silent.address)
            await start_at(player, "endless", ["e"], endless.address)
            await player.create(run_object("bomb", model=MODEL, objective={"configMapRef": {"name": "bomb"}}))
            await until_true(lambda: silent.connections >= SILENT and len(endless.sent) >= 1)
            await player.create(run_object(model=MODEL, iterations=ITERATIONS))
            run = await player.until(is_completed, "completion")
            assert len(run["status"]["iterations"]) == ITERATIONS
            bombed = await player.api.get(object_path(RUNS, "default", "bomb")) or {}
            stalled = next(c for c in bombed["status"]["conditions"] if c["type"] == "Stalled")
            assert (stalled["status"], stalled["reason"]) == ("True", "BadObjective")
            pods = await player.items(collection_path(PODS, "silent"))
            assert len(pods) == SILENT, "no silent stage was ended or tried again"

        scenario(server, story, well)
        told, memory = transitions(port), peak_rss_mib(operator.pid)
        log.info("transitions %s, peak memory %.0f MiB, %d unanswered questions", told, memory, silent.connections)
    assert told["count"] >= ITERATIONS * len(ITERATION_STAGES)
    assert memory < LARGEST_RSS_MIB
    assert max(endless.sent) < MOST_BYTES + _SOCKET_BUFFERS
