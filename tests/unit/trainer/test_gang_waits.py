"""What a node of a gang says while it cannot reach node 0, and that it stops saying so by itself."""

import logging
import socket
import threading
import time
from collections.abc import Callable

import pytest
from prometheus_client import generate_latest

from dynalign_contract.gang import WaitCause, WaitMetric
from dynalign_operator.clusters.stage_metrics import parse_metrics
from dynalign_trainer.runtime.context import Gang
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.train.processes import gang as gang_module
from dynalign_trainer.train.processes.gang import telling_of_waits
from lab.processes import free_port


def said(telemetry: Telemetry, metric: WaitMetric) -> float | None:
    return telemetry.registry.get_sample_value("dynalign_stage_metric", {"name": metric.value})


def until(is_reached: Callable[[], bool], what: str) -> None:
    pause, end = threading.Event(), time.monotonic() + 60
    while not is_reached():
        assert time.monotonic() < end, f"waited in vain for {what}"
        pause.wait(0.01)


def test_a_node_says_whom_it_waits_for_and_goes_on_when_it_can_connect(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    telemetry = Telemetry()
    with (
        caplog.at_level(logging.WARNING, "dynalign.train"),
        telling_of_waits(Gang(rank=1, nodes=2, coordinator=f"127.0.0.1:{port}"), telemetry, try_again=0.01),
    ):
        until(lambda: bool(said(telemetry, WaitMetric.SINCE)), "the node's complaint")
        assert said(telemetry, WaitMetric.NODE) == 1
        assert said(telemetry, WaitMetric.CAUSE) == WaitCause.REFUSED
        read = parse_metrics(generate_latest(telemetry.registry).decode())
        assert read.wait is not None
        assert (read.wait.node, read.wait.cause) == (1, WaitCause.REFUSED)
        with socket.create_server(("127.0.0.1", port)):
            until(lambda: said(telemetry, WaitMetric.SINCE) == 0, "the connection")
    assert parse_metrics(generate_latest(telemetry.registry).decode()).wait is None
    (told,) = (record.getMessage() for record in caplog.records)
    assert f"node 1 has waited for node 0 at 127.0.0.1:{port} since" in told
    assert "goes on once it can connect" in told


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), WaitCause.NAME),
        (ConnectionRefusedError(), WaitCause.REFUSED),
        (TimeoutError("timed out"), WaitCause.SILENT),
        (OSError(113, "No route to host"), WaitCause.SILENT),
    ],
)
def test_the_cause_is_told_apart(error: OSError, cause: WaitCause, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: tuple[str, int]) -> None:
        raise error

    monkeypatch.setattr(gang_module, "connect", fails)
    telemetry = Telemetry()
    with telling_of_waits(Gang(rank=2, nodes=3, coordinator="r-0.train-r:29400"), telemetry, try_again=0.01):
        until(lambda: said(telemetry, WaitMetric.CAUSE) == cause, "the cause")


def test_node_0_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: tuple[str, int]) -> None:
        pytest.fail("it tried to connect")

    monkeypatch.setattr(gang_module, "connect", fails)
    telemetry = Telemetry()
    for gang in (Gang(), Gang(rank=0, nodes=2, coordinator="r-0.train-r:29400")):
        with telling_of_waits(gang, telemetry, try_again=0.01):
            pass
    assert said(telemetry, WaitMetric.SINCE) is None
