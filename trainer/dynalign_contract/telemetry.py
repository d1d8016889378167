"""The series that a stage serves at `/metrics`, and how much of them is read."""

from enum import StrEnum
from typing import Final


class StageSeries(StrEnum):
    """Names of a stage's own series. A reader knows no others."""

    DONE = "dynalign_stage_done"
    """Units of work finished."""
    TOTAL = "dynalign_stage_total"
    """Units of work in all; 0 while unknown."""
    TOKENS_PER_SECOND = "dynalign_stage_tokens_per_second"
    """Tokens processed a second, most recently."""
    START_SECONDS = "dynalign_stage_start_seconds"
    """Seconds from the process's start to its first useful work; 0 before that."""
    METRIC = "dynalign_stage_metric"
    """Learning metrics so far, by the label `name`."""


class StartSeries(StrEnum):
    """Learning metrics of a stage before it has done anything: a large model takes minutes to be read and checked."""

    VERIFIED_BYTES = "verified_bytes"
    """Bytes of the inputs whose digests have been checked."""


class RolloutSeries(StrEnum):
    """Learning metrics of a rollout, beside those of the stage that it is at."""

    PART = "rollout_part"
    """Place of the stage that runs in `PART_STAGES`, from 0."""


MOST_BYTES: Final = 65_536
"""A longer answer is not read: a stage's own has some hundreds of bytes."""
MOST_SAMPLES: Final = 128
"""Samples of known series that are read; more are left."""
LONGEST_LINE: Final = 512
"""Characters of a line that is read; a longer one is left."""
