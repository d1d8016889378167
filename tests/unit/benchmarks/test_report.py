"""Percentiles, and the line that machines read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report import Machine, describe, percentile, report_line

NUMBERS = st.lists(st.floats(0, 1e6), min_size=1)


@pytest.mark.parametrize(
    ("sample", "share", "wanted"),
    [
        ([7.0], 0.95, 7.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        ([3.0, 1.0, 2.0, 4.0], 0.5, 2.5),
        ([0.0, 10.0], 0.95, 9.5),
        (list(range(101)), 0.99, 99.0),
        ([1.0, 2.0], 0.0, 1.0),
        ([1.0, 2.0], 1.0, 2.0),
    ],
)
def test_percentiles(sample: list[float], share: float, wanted: float) -> None:
    assert percentile(sample, share) == pytest.approx(wanted)


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="empty sample"):
        percentile([], 0.5)


@given(NUMBERS)
def test_a_description_is_ordered_and_lies_within_the_sample(sample: list[float]) -> None:
    told = describe(sample)
    tolerance = 1e-6 * told.max
    assert told.n == len(sample)
    assert min(sample) - tolerance <= told.p50 <= told.p95 + tolerance
    assert told.p95 <= told.p99 + tolerance <= told.max + 2 * tolerance


def test_the_line_has_the_four_names() -> None:
    machine = Machine(cpus=2, cpu="x", memory_gib=8.0, system="Linux", load=0.5)
    line = report_line("bench-x", machine, {"p50_ms": 1.5}, {})
    assert "\n" not in line
    assert json.loads(line) == {
        "name": "bench-x",
        "machine": {"cpus": 2, "cpu": "x", "memory_gib": 8.0, "system": "Linux", "load": 0.5},
        "values": {"p50_ms": 1.5},
        "ratios": {},
    }
