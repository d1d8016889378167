"""An evaluation that is split over shards and put together again."""

from hypothesis import given
from hypothesis import strategies as st

from dynalign_trainer.evaluate.splitting import Part, interleave, interleave_groups

counts = st.integers(1, 9)


@given(st.lists(st.integers()), counts)
def test_parts_are_put_together_in_the_order_of_the_whole(rows: list[int], count: int) -> None:
    parts = [Part(index, count) for index in range(count)]
    assert interleave([part.of(rows) for part in parts]) == rows
    assert [part.size(len(rows)) for part in parts] == [len(part.of(rows)) for part in parts]
    assert all(sum(part.has(number) for part in parts) == 1 for number in range(len(rows)))


@given(st.lists(st.integers(1, 7), max_size=4), counts)
def test_each_group_is_split_for_itself(sizes: list[int], count: int) -> None:
    """As the items of tasks are: the first shard has an item of every one."""
    groups = [[(task, item) for item in range(size)] for task, size in enumerate(sizes)]
    shares = [[row for group in groups for row in Part(index, count).of(group)] for index in range(count)]
    assert interleave_groups(shares, lambda row: row[0]) == [row for group in groups for row in group]
