"""The schedule: every row that carries loss has one place, whatever the shapes."""

from collections import Counter
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.records import BatchRow
from dynalign_trainer.train.trl.schedule import plan_schedule


def a_row(step: int, length: int, *, masked: bool) -> BatchRow:
    row: Any = {"step": step, "prompt_ids": [1], "completion_ids": [1] * length, "masked": masked}
    return cast("BatchRow", row)


@st.composite
def batches(draw: st.DrawFn) -> list[BatchRow]:
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    rows = [(step, draw(st.integers(1, 30)), draw(st.booleans())) for step, n in enumerate(sizes) for _ in range(n)]
    return [a_row(step, length, masked=masked) for step, length, masked in rows]


@given(batches(), st.integers(1, 4), st.integers(1, 5))
def test_every_unmasked_row_is_scheduled_exactly_once_in_its_step(rows: list[BatchRow], ranks: int, micro: int) -> None:
    schedule = plan_schedule(rows, ranks=ranks, micro_batch=micro)
    seen: Counter[int] = Counter()
    for step in range(schedule.steps):
        for part in range(schedule.micro_batches):
            for rank in range(ranks):
                numbers = schedule.rows(step, part, rank)
                assert len(numbers) == schedule.micro_batch <= micro
                for number in numbers:
                    if number is not None:
                        assert rows[number]["step"] == step
                        seen[number] += 1
    assert seen == Counter(n for n, row in enumerate(rows) if not row["masked"])


@given(batches(), st.integers(1, 4), st.integers(1, 5))
def test_ranks_share_the_rows_out(rows: list[BatchRow], ranks: int, micro: int) -> None:
    schedule = plan_schedule(rows, ranks=ranks, micro_batch=micro)
    for step in range(schedule.steps):
        shares = [schedule.of_rank(rank, step) for rank in range(ranks)]
        unmasked = {n for n, row in enumerate(rows) if row["step"] == step and not row["masked"]}
        assert sorted(n for share in shares for n in share) == sorted(unmasked)


def test_micro_batches_shrink_rather_than_hold_blanks() -> None:
    rows = [a_row(0, 5, masked=False) for _ in range(6)]
    schedule = plan_schedule(rows, ranks=1, micro_batch=4)
    assert (schedule.micro_batches, schedule.micro_batch) == (2, 3)


def test_sequences_of_like_length_share_a_micro_batch_longest_first() -> None:
    rows = [a_row(0, length, masked=False) for length in (3, 9, 4, 8)]
    schedule = plan_schedule(rows, ranks=2, micro_batch=1)
    assert [schedule.rows(0, micro, rank) for micro in (0, 1) for rank in (0, 1)] == [(1,), (3,), (2,), (0,)]


def test_a_single_sequence_is_completed_by_a_blank() -> None:
    schedule = plan_schedule([a_row(0, 5, masked=False)], ranks=1, micro_batch=1)
    assert schedule.slots == ((0, None),)
