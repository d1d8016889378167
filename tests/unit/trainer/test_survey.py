"""Sampler against trainer: rejection by the geometric mean, sums over ranks, and the file a checkpoint keeps."""

import math
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.settings import RatioBand
from dynalign_trainer.train.reference_pass import (
    RowLogprobs,
    combine,
    measure_mismatch,
    read_survey,
    survey_file,
    write_survey,
)

BAND = RatioBand(low=0.5, high=2.0)


def shifted(shift: float, length: int = 4) -> RowLogprobs:
    return RowLogprobs(start=[-1.0 + shift] * length, reference=[-1.0] * length)


@pytest.mark.parametrize(
    ("shift", "rejected"),
    [
        (0.0, False),
        (math.log(1.99), False),
        (math.log(2.01), True),
        (math.log(0.51), False),
        (math.log(0.49), True),
        (math.nan, True),
    ],
)
def test_a_row_is_rejected_by_its_mean_whatever_its_length(shift: float, rejected: bool) -> None:
    for length in (1, 500):
        rows: Any = [{"logprobs": [-1.0] * length}]
        assert measure_mismatch(rows, {0: shifted(shift, length)}, BAND).rejected == (
            frozenset({0}) if rejected else frozenset()
        )


def test_ranks_add_up() -> None:
    rows: Any = [{"logprobs": [-1.0] * 4}] * 2
    ranks = [measure_mismatch(rows, {0: shifted(math.log(3))}, BAND), measure_mismatch(rows, {1: shifted(0.0)}, BAND)]
    mismatch = combine(ranks)
    assert (mismatch.rows, mismatch.rejected) == (2, 1)
    assert mismatch.ratio_mean == pytest.approx(2.0)
    assert mismatch.ratio_max == pytest.approx(3.0)
    assert mismatch.logprob_difference == pytest.approx(math.log(3) / 2)


def test_a_rank_without_rows_counts_for_nothing() -> None:
    empty = measure_mismatch([], {}, BAND)
    assert combine([empty]).ratio_mean is None


def test_a_survey_survives_its_file(tmp_path: Path) -> None:
    surveyed = {3: RowLogprobs([-0.5, -1.5], [-0.25, -2.0]), 1: RowLogprobs([-3.0], [-3.0])}
    path = survey_file(tmp_path, rank=1)
    write_survey(path, surveyed)
    assert read_survey(path) == surveyed
