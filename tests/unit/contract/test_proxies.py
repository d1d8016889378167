"""Requests to this very machine take no proxy, whatever the environment says."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from dynalign_contract.proxies import both_cases, direct_to_this_machine, joined_hosts
from dynalign_operator.clusters.local.stage_port import read_metrics


class _Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"dynalign_stage_done 3.0\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), _Metrics)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in both_cases({"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "example.com"}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("a_proxy_that_is_not_there")
def test_the_operator_reads_a_stage_of_this_machine_directly(port: int) -> None:
    found = read_metrics(port)
    assert found is not None
    assert found.done == 3


@pytest.mark.usefixtures("a_proxy_that_is_not_there")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_stage_asks_an_endpoint_of_this_machine_directly(
    port: int, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{host}:{port}/")
    for name, value in direct_to_this_machine({"NO_PROXY": "example.com"}).items():
        monkeypatch.setenv(name, value)
    assert httpx.get(f"http://{host}:{port}/").status_code == 200


def test_what_is_excepted_already_stays() -> None:
    found = direct_to_this_machine({"NO_PROXY": "example.com, localhost", "no_proxy": ".lan"})
    assert found["NO_PROXY"] == found["no_proxy"] == "example.com,localhost,.lan,127.0.0.1,::1"
    assert joined_hosts("", " a ,,b", "a") == "a,b"
