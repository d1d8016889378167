"""Progress and learning metrics of a running stage, parsed from its `/metrics`. Pure; the text is untrusted."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from dynalign_contract.gang import WaitCause, WaitMetric
from dynalign_contract.stages import PART_STAGES, Stage
from dynalign_contract.telemetry import LONGEST_LINE, MOST_SAMPLES, RolloutSeries, StageSeries
from dynalign_operator.planning.observed import GangWait, JobProgress

_SERIES: Final = tuple(StageSeries)
_LARGEST: Final = 1e15
"""Maximum number that counts: sums and shares of such numbers are finite."""
_LONGEST_NAME: Final = 64


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
    def part(self) -> Stage | None:
        """The stage that a rollout is at, as the learning metrics tell; None where they tell of none."""
        place = self.metrics.get(RolloutSeries.PART, -1.0)
        return PART_STAGES[int(place)] if place in range(len(PART_STAGES)) else None

    @property
    def progress(self) -> JobProgress:
        """Done and total, as the planner wants them."""
        return JobProgress(self.done, self.total, part=self.part)


def combine_progress(readings: Iterable[LiveMetrics]) -> JobProgress:
    """The progress of a Job, all its pods together."""
    read = tuple(readings)
    waits = sorted(reading.wait for reading in read if reading.wait is not None)
    part = next((reading.part for reading in read if reading.part is not None), None)
    return JobProgress(sum(r.done for r in read), sum(r.total for r in read), tuple(waits), part)


def parse_metrics(text: str) -> LiveMetrics:
    """Parse the exposition format: the series of a stage alone, at most `MOST_SAMPLES`. Raises ValueError."""
    plain: dict[str, float] = {}
    learning: dict[str, float] = {}
    for family in text_string_to_metric_families("\n".join([*islice(_known_lines(text), MOST_SAMPLES), ""])):
        for sample in family.samples:
            if not math.isfinite(sample.value) or abs(sample.value) > _LARGEST:
                continue
            name = sample.labels.get("name", "")
            if sample.name != StageSeries.METRIC:
                plain[sample.name] = sample.value
            elif 0 < len(name) <= _LONGEST_NAME:
                learning[name] = sample.value
    return LiveMetrics(
        done=plain.get(StageSeries.DONE, 0.0),
        total=plain.get(StageSeries.TOTAL, 0.0),
        tokens_per_second=plain.get(StageSeries.TOKENS_PER_SECOND, 0.0),
        metrics=learning,
    )


def _known_lines(text: str) -> Iterator[str]:
    """Samples of the known series: what a line costs to parse is bounded before it is parsed."""
    for line in text.split("\n"):
        if len(line) <= LONGEST_LINE and line.startswith(_SERIES) and line.split("{")[0].split(" ")[0] in _SERIES:
            yield line
