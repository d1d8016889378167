"""What a running stage says of itself at `/metrics`."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from dynalign_contract.gang import WaitCause, WaitMetric
from dynalign_operator.planning.observed import GangWait, JobProgress

_TIMEOUT_SECONDS: Final = 1.0


@dataclass(frozen=True)
class LiveMetrics:
    """One reading. Two that differ are progress."""

    done: float = 0.0
    total: float = 0.0
    """0 while unknown."""
    tokens_per_second: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Learning metrics so far."""

    @property
    def wait(self) -> GangWait | None:
        """The wait of a gang's node that the learning metrics tell of; None where they tell of none."""
        since = self.metrics.get(WaitMetric.SINCE, 0.0)
        try:
            return (
                GangWait(
                    int(self.metrics[WaitMetric.NODE]),
                    datetime.fromtimestamp(since, UTC),
                    WaitCause(int(self.metrics[WaitMetric.CAUSE])),
                )
                if since > 0
                else None
            )
        except (KeyError, ValueError, OverflowError, OSError):
            return None

    @property
    def progress(self) -> JobProgress:
        """Done and total, as the planner wants them."""
        return JobProgress(self.done, self.total)


def combine_progress(readings: Iterable[LiveMetrics]) -> JobProgress:
    """The progress of a Job, all its pods together."""
    read = tuple(readings)
    waits = sorted(reading.wait for reading in read if reading.wait is not None)
    return JobProgress(sum(r.done for r in read), sum(r.total for r in read), tuple(waits))


def parse_metrics(text: str) -> LiveMetrics:
    """Parse the exposition format. Raises ValueError when it is none."""
    plain: dict[str, float] = {}
    learning: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "dynalign_stage_metric":
                learning[sample.labels["name"]] = sample.value
            else:
                plain[sample.name] = sample.value
    return LiveMetrics(
        done=plain.get("dynalign_stage_done", 0.0),
        total=plain.get("dynalign_stage_total", 0.0),
        tokens_per_second=plain.get("dynalign_stage_tokens_per_second", 0.0),
        metrics=learning,
    )


def read_metrics(port: int) -> LiveMetrics | None:
    """Read a stage on this machine; None while it does not answer, which is no error: it may be starting or ending."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_SECONDS) as answer:
            return parse_metrics(answer.read().decode())
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, KeyError):
        return None
