"""Reads the `/metrics` of a stage that runs on this machine."""

import http.client
import urllib.error
import urllib.request
from typing import Final

from dynalign_contract.telemetry import MOST_BYTES
from dynalign_operator.clusters.stage_metrics import LiveMetrics, parse_metrics

_TIMEOUT_SECONDS: Final = 1.0
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Requests to this machine take no proxy, whatever the environment says."""


def read_metrics(port: int) -> LiveMetrics | None:
    """Read a stage on this machine; None while it does not answer, which is no error: it may be starting or ending."""
    try:
        with _DIRECT.open(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_SECONDS) as answer:
            return parse_metrics(answer.read(MOST_BYTES).decode())
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, KeyError):
        return None
