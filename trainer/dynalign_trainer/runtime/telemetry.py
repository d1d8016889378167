"""`/metrics` and `/healthz` of a stage, from its own registry. Names carry units; labels are bounded."""

import contextlib
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dynalign_contract.gang import WaitMetric
from dynalign_contract.metrics import STAGE_METRICS, MetricDef
from dynalign_contract.phases import Phase
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_contract.telemetry import RolloutSeries, StageSeries, StartSeries
from dynalign_trainer.runtime.phases import Phases
from dynalign_trainer.runtime.useful_time import UsefulTime

_CLOSE_WITHIN_SECONDS: Final = 0.05
"""How long a server that is closed may take to notice; a stage ends after it."""


@dataclass(frozen=True)
class Share:
    """The place of one stage among those that a process runs one after the other."""

    index: int = 0
    """Stages before it."""
    count: int = 1
    """Stages in all."""


class Telemetry:
    """Progress, rates and learning metrics of one stage."""

    def __init__(self, start: float | None = None, share: Share = Share()) -> None:
        """`start`: Unix time at which the stage began; None for the start of the process. `share` places its progress
        within that of a rollout."""
        self._share = share
        self.registry = CollectorRegistry()
        self._done = Gauge(StageSeries.DONE, "Units of work finished.", registry=self.registry)
        self._total = Gauge(StageSeries.TOTAL, "Units of work in all; 0 while unknown.", registry=self.registry)
        self._rate = Gauge(
            StageSeries.TOKENS_PER_SECOND, "Tokens processed a second, most recently.", registry=self.registry
        )
        self._start = Gauge(
            StageSeries.START_SECONDS,
            "Seconds from the process's start to its first useful work; 0 before that.",
            registry=self.registry,
        )
        self.start_seconds: float | None = None
        """Seconds from the process's start to its first useful work; None before that."""
        self.useful = UsefulTime(on_first=self._begin_work, on_end=lambda: self.phases.end(Phase.WORK))
        """Time in which the stage sampled, judged, trained or evaluated."""
        self.phases = Phases(start)
        """Where the time before and after the useful work went."""
        self._metric = Gauge(StageSeries.METRIC, "Learning metrics so far.", ["name"], registry=self.registry)
        self._lock = threading.Lock()
        self._verified_bytes = 0

    def begin(self, at: float | None = None) -> None:
        """Say that the first useful work begins now, or has begun at this Unix time; only the first call counts."""
        with self._lock:
            if self.start_seconds is None:
                self.start_seconds = max(0.0, (at or time.time()) - self.phases.start)
                self._start.set(self.start_seconds)

    def _begin_work(self) -> None:
        self.phases.once(Phase.PREPARATION)
        self.begin()

    def progress(self, done: float, total: float) -> None:
        """Say how far the stage is, in units of its own choice; a stage of a rollout counts for one unit of that."""
        if self._share.count > 1:
            fraction = min(1.0, done / total) if total > 0 else 0.0
            done, total = self._share.index + fraction, self._share.count
        with self._lock:
            self._done.set(done)
            self._total.set(total)

    def rate(self, tokens_per_second: float) -> None:
        """Say how many tokens a second are being read or written."""
        self._rate.set(tokens_per_second)

    def verified(self, size: int) -> None:
        """Say that so many further bytes of the inputs are what their digests say. Any thread may call it."""
        with self._lock:
            self._verified_bytes += size
            self.metric(StartSeries.VERIFIED_BYTES, self._verified_bytes)

    def metric(self, metric: MetricDef[Any] | WaitMetric | RolloutSeries | StartSeries, value: float) -> None:
        """Publish a learning metric."""
        self._metric.labels(metric.name if isinstance(metric, MetricDef) else metric.value).set(value)

    def text(self) -> str:
        """Everything that `/metrics` answers."""
        return generate_latest(self.registry).decode()

    def serve(self, port: int) -> "TelemetryServer":
        """Serve on all interfaces; port 0 takes a free one."""
        return TelemetryServer(self.registry, port)


def measured_times(stage: Stage, telemetry: Telemetry) -> dict[MetricDef[Any], float]:
    """Where the time of a stage went. Only the stages of an iteration use devices, and have useful time."""
    metrics = STAGE_METRICS[stage]
    values: dict[MetricDef[Any], float] = {}
    if telemetry.start_seconds is not None:
        values[metrics.start_seconds] = telemetry.start_seconds
    if stage in ITERATION_STAGES:
        values[metrics.useful_seconds] = telemetry.useful.seconds
        values[metrics.preserved_seconds] = telemetry.useful.preserved_seconds
    return values


class TelemetryServer:
    """HTTP server in a daemon thread."""

    def __init__(self, registry: CollectorRegistry, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/healthz":
                    self._answer(b"ok\n", "text/plain")
                elif self.path == "/metrics":
                    self._answer(generate_latest(registry), CONTENT_TYPE_LATEST)
                else:
                    self.send_error(404)

            def _answer(self, body: bytes, content_type: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle_one_request(self) -> None:
                # a reader that gives up waiting is no event for the stage's log
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                pass

        self._server = ThreadingHTTPServer(("", port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        serve, interval = self._server.serve_forever, (_CLOSE_WITHIN_SECONDS,)
        threading.Thread(target=serve, args=interval, daemon=True, name="telemetry").start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
