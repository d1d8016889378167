"""The report of finished, running and failed runs, and the plotting library that goes into it."""

from collections.abc import Sequence
from pathlib import Path

from dynalign_contract.files import write_bytes
from dynalign_report.facts import ReportedRun
from dynalign_report.page import build_page


def write_report(file: Path, runs: Sequence[ReportedRun], made: str) -> int:
    """Write the report of these runs atomically; returns its bytes. `made` says when it was made."""
    from plotly.offline import get_plotlyjs

    data = build_page(runs, made, get_plotlyjs()).encode()
    write_bytes(file, data)
    return len(data)
