"""What a running stage says of itself at `/metrics`."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from dynalign_operator.planning.observed import JobProgress

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
    def progress(self) -> JobProgress:
        """Done and total, as the planner wants them."""
        return JobProgress(self.done, self.total)


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
