"""The example server of rewards, as it is and with troubles that a test decides."""

import io
import os
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from dynalign_operator.clusters.local.processes import free_port
from support.loopback import serve

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "reward_server.py"


@dataclass(frozen=True)
class Trouble:
    """A response in place of the example's."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    waits: threading.Event | None = None
    """The response comes once this is set."""


@dataclass
class RewardServerLog:
    """What the server was asked by POST."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    probes: int = 0


def example_handler(**methods: Any) -> type[BaseHTTPRequestHandler]:
    """The request handler of examples/reward_server.py, silent, with other methods in place of its own."""
    example: type[BaseHTTPRequestHandler] = runpy.run_path(str(EXAMPLE))["Rewards"]
    return type("Handler", (example,), {"log_message": lambda *_: None, **methods})


@contextmanager
def serve_rewards(trouble: Callable[[int], Trouble | None] = lambda number: None) -> Iterator[RewardServerLog]:
    """The example server on a loopback port; `trouble` may replace the response to the POST of that number, from 0."""
    example: Any = example_handler()
    log, lock = RewardServerLog(), threading.Lock()

    class Handler(example):
        rfile: Any

        def do_GET(self) -> None:  # noqa: N802 - http.server names it so
            log.probes += 1
            super().do_GET()

        def do_POST(self) -> None:  # noqa: N802 - http.server names it so
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                number = len(log.bodies)
                log.bodies.append(body)
                log.keys.append(self.headers["Authorization"])
            found = trouble(number)
            if found is None:
                connection, self.rfile = self.rfile, io.BytesIO(body)
                super().do_POST()
                self.rfile = connection
                return
            if found.waits is not None:
                found.waits.wait(60)
            self.send_response(found.status)
            for name, value in {"Content-Length": str(len(found.body)), **found.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.body)

    with serve_scores(Handler) as log.url:
        yield log


@contextmanager
def serve_scores(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server of rewards on a loopback port of its own."""
    with serve(handler) as origin:
        yield f"{origin}/score"


@contextmanager
def start_example(key: str) -> Iterator[str]:
    """The URL of the example server as a process of its own, which answers those who know the key."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/score"
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE), str(port)], env={**os.environ, "REWARDS_KEY": key}, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait_until_it_answers(url, process)
            yield url
        finally:
            process.terminate()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    """Poll until the server answers; its end ends the wait too."""
    while process.poll() is None:
        try:
            httpx.get(url, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)  # between two looks at it
        else:
            return
    pytest.fail(f"{EXAMPLE} ended with {process.returncode}")
