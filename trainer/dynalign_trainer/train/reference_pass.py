"""Reference pass: scores every row before the first step, for the mismatch with the sampler and the KL reference.

One pass without gradient over the batch gives the trainer's own log-probabilities of the starting policy. Three things
follow from it: rows outside the ratio band are rejected *before* any token is counted, so the normalisers stay exact;
the mismatch is known over the whole batch instead of the first step; and the KL reference is a recorded constant, so
that training needs neither a second adapter nor a reference pass in every step.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from dynalign_contract.errors import CorruptArtifactError, UnfitError
from dynalign_contract.records import BatchRow, Table, read_rows, write_rows
from dynalign_contract.records.columns import Int32, Logprobs
from dynalign_contract.settings import RatioBand
from dynalign_trainer.train.job import Mismatch


class SurveyRow(TypedDict):
    """Log-probabilities of one row's completion tokens."""

    row: Int32
    """Number of the row in the batch."""
    start: Logprobs
    """Log-probabilities under the policy that training starts from."""
    reference: Logprobs
    """Log-probabilities under the KL reference."""


SURVEY: Final = Table(SurveyRow)
_SURVEY_FILES: Final = "survey-*.parquet"


@dataclass(frozen=True)
class RowLogprobs:
    """Log-probabilities of one row's completion tokens, shapes (T,)."""

    start: Sequence[float]
    reference: Sequence[float]


@dataclass(frozen=True)
class RankMismatch:
    """Mismatch of one rank's rows, in sums that can be added over ranks."""

    rows: int
    rejected: frozenset[int]
    tokens: int
    difference: float
    """Sum of |log ratio|."""
    ratio: float
    """Sum of ratios."""
    ratio_max: float


def measure_mismatch(rows: Sequence[BatchRow], surveyed: Mapping[int, RowLogprobs], band: RatioBand) -> RankMismatch:
    """Measure how far the recorded log-probabilities of the scored rows are from the trainer's.

    A row is rejected when the geometric mean of its token ratios, exp(mean(log pi_start - log pi_sampler)), lies
    outside the band: the mean, unlike the sum, does not grow with the length of the answer.
    """
    logs = {
        number: [a - b for a, b in zip(seen.start, rows[number]["logprobs"], strict=True)]
        for number, seen in surveyed.items()
    }
    tokens = [value for values in logs.values() for value in values]
    ratios = [math.exp(min(value, 700.0)) for value in tokens]
    return RankMismatch(
        rows=len(logs),
        rejected=frozenset(n for n, values in logs.items() if not _inside(statistics.fmean(values), band)),
        tokens=len(tokens),
        difference=sum(abs(value) for value in tokens),
        ratio=sum(ratios),
        ratio_max=max(ratios, default=0.0),
    )


def _inside(log_ratio: float, band: RatioBand) -> bool:
    return math.log(band.low) <= log_ratio <= math.log(band.high)


def merge_mismatch(ranks: Sequence[RankMismatch], band: RatioBand) -> tuple[Mismatch, frozenset[int]]:
    """The mismatch over all ranks and the rejected rows; raises UnfitError when no row remains."""
    mismatch = combine(ranks)
    if mismatch.rows == mismatch.rejected:
        raise UnfitError(
            f"all {mismatch.rows} rows lie outside spec.training.ratioBand ({band.low} to {band.high}): the trainer's "
            f"log-probabilities are not the sampler's (mean ratio {mismatch.ratio_mean}). Check that generate and "
            "train use the same dtype, or widen the band."
        )
    return mismatch, frozenset[int]().union(*(rank.rejected for rank in ranks))


def combine(ranks: Sequence[RankMismatch]) -> Mismatch:
    """The mismatch over all ranks."""
    tokens = sum(rank.tokens for rank in ranks)
    return Mismatch(
        rows=sum(rank.rows for rank in ranks),
        rejected=sum(len(rank.rejected) for rank in ranks),
        logprob_difference=sum(rank.difference for rank in ranks) / tokens if tokens else None,
        ratio_mean=sum(rank.ratio for rank in ranks) / tokens if tokens else None,
        ratio_max=max(rank.ratio_max for rank in ranks) if tokens else None,
    )


def survey_file(folder: Path, rank: int) -> Path:
    """A checkpoint's file with one rank's log-probabilities: a resumed run no longer has the starting policy."""
    return folder / _SURVEY_FILES.replace("*", f"{rank:05d}")


def read_surveys(folder: Path, numbers: Collection[int]) -> dict[int, RowLogprobs]:
    """Log-probabilities of these rows from a checkpoint, whichever ranks have scored them.

    Raises CorruptArtifactError when they cannot be read, or are not all there.
    """
    found = {n: seen for path in sorted(folder.glob(_SURVEY_FILES)) for n, seen in read_survey(path).items()}
    if missing := set(numbers) - found.keys():
        raise CorruptArtifactError(
            f"the reference pass in {folder} lacks {len(missing)} rows of the batch. Remove the folder to have "
            "training go on from the checkpoint before it, or from the beginning."
        )
    return {number: found[number] for number in sorted(numbers)}


def write_survey(path: Path, surveyed: Mapping[int, RowLogprobs]) -> None:
    """Write one rank's log-probabilities."""
    rows = [SurveyRow(row=n, start=list(s.start), reference=list(s.reference)) for n, s in sorted(surveyed.items())]
    write_rows(path, rows, SURVEY)


def read_survey(path: Path) -> dict[int, RowLogprobs]:
    """Read one rank's survey; raises CorruptArtifactError when it cannot be read."""
    return {row["row"]: RowLogprobs(row["start"], row["reference"]) for row in read_rows(path, SURVEY)}
