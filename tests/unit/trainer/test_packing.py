"""The packer: every row that may carry loss in exactly one pack, within the budget, and little waste."""

import math
import random
from collections import Counter
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.records import BatchRow
from dynalign_trainer.train.packed.layout import TokenRow, lay_out
from dynalign_trainer.train.packed.packing import Item, Pack, first_fit, in_order, plan_packs


def a_row(step: int, group: str, prompt: int, completion: int, *, masked: bool = False) -> BatchRow:
    ids = {"prompt_ids": [1] * prompt, "completion_ids": [2] * completion}
    return cast("BatchRow", {"step": step, "prompt_id": group, "masked": masked, **ids})


@st.composite
def batches(draw: st.DrawFn) -> list[BatchRow]:
    rows = []
    for step in range(draw(st.integers(1, 3))):
        for group in range(draw(st.integers(1, 4))):
            prompt = draw(st.integers(1, 30))
            rows += [
                a_row(step, f"{step}-{group}", prompt, draw(st.integers(1, 40)), masked=draw(st.booleans()))
                for _ in range(draw(st.integers(1, 5)))
            ]
    return rows


def log_normal(draw: random.Random) -> int:
    return min(256, max(16, round(math.exp(draw.gauss(math.log(64), 0.7)))))


def cost(rows: list[BatchRow], numbers: tuple[int, ...]) -> int:
    prompts = {rows[n]["prompt_id"]: len(rows[n]["prompt_ids"]) for n in numbers}
    return sum(prompts.values()) + sum(len(rows[n]["completion_ids"]) for n in numbers)


def plain_first_fit(ordered: list[Item], budget: int) -> list[Pack]:
    """The definition, which looks at every pack for every row."""
    packs: list[list[Item]] = []
    for item in ordered:
        homes = [pack for pack in packs if any(other.group == item.group for other in pack)]
        fitting = [pack for pack in packs if tokens_of([*pack, item]) <= budget]
        chosen = next((pack for pack in fitting if pack in homes), None) or next(iter(fitting), None)
        if chosen is None:
            packs.append(chosen := [])
        chosen.append(item)
    return [Pack(tuple(sorted(item.number for item in pack)), tokens_of(pack)) for pack in packs]


def tokens_of(items: list[Item]) -> int:
    return sum({item.group: item.prompt for item in items}.values()) + sum(item.completion for item in items)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 40)), max_size=60), st.integers(8, 120))
def test_the_packs_are_those_of_the_plain_definition(rows: list[tuple[int, int]], budget: int) -> None:
    items = [Item(number, f"g{group}", 3 * group + 1, length) for number, (group, length) in enumerate(rows)]
    ordered = in_order(items)
    assert first_fit(ordered, budget) == plain_first_fit(ordered, budget)


@given(batches(), st.integers(1, 3), st.integers(16, 200))
def test_every_unmasked_row_is_in_one_pack_of_its_step_within_the_budget(
    rows: list[BatchRow], ranks: int, budget: int
) -> None:
    plan = plan_packs(rows, ranks=ranks, budget=budget)
    seen: Counter[int] = Counter()
    for step, packs in enumerate(plan.steps):
        assert len(packs) % ranks == 0
        assert packs, "a step without rows takes part in collective operations all the same"
        for pack in packs:
            assert pack.tokens == cost(rows, pack.rows)
            assert pack.tokens <= budget or len(pack.rows) == 1
            assert all(rows[n]["step"] == step for n in pack.rows)
            seen.update(pack.rows)
    assert seen == Counter(n for n, row in enumerate(rows) if not row["masked"])
    shares = [plan.of_rank(rank) for rank in range(ranks)]
    assert sum(len(share) for share in shares) == len(frozenset[int]().union(*shares)) == len(seen)


@given(batches(), st.integers(1, 3), st.integers(16, 200))
def test_a_plan_depends_on_the_rows_only(rows: list[BatchRow], ranks: int, budget: int) -> None:
    assert plan_packs(rows, ranks=ranks, budget=budget) == plan_packs(list(rows), ranks=ranks, budget=budget)


@given(batches(), st.integers(16, 200))
def test_first_fit_leaves_no_two_packs_that_fit_into_one(rows: list[BatchRow], budget: int) -> None:
    items = [
        Item(n, row["prompt_id"], len(row["prompt_ids"]), len(row["completion_ids"]))
        for n, row in enumerate(rows)
        if row["step"] == 0
    ]
    packs = first_fit(in_order(items), budget)
    for i, pack in enumerate(packs):
        for other in packs[i + 1 :]:
            assert cost(rows, pack.rows) + cost(rows, other.rows) > budget


def test_log_normal_lengths_waste_less_than_a_twentieth() -> None:
    for seed in range(20):
        draw = random.Random(seed)
        rows = []
        for group in range(16):
            prompt = log_normal(draw)
            rows += [a_row(group // 8, f"p{group}", prompt, log_normal(draw)) for _ in range(8)]
        for ranks in (1, 2, 4):
            plan = plan_packs(rows, ranks=ranks, budget=1024)
            assert plan.waste < 0.05, (seed, ranks)
            packed = sum(pack.tokens for step in plan.steps for pack in step)
            alone = sum(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows)
            assert packed < 0.75 * alone, "prompts are shared"


def test_candidates_stay_with_their_prompt_and_long_rows_alone() -> None:
    rows = [a_row(0, "a", 5, 5), a_row(0, "a", 5, 5), a_row(0, "b", 5, 100), a_row(0, "b", 5, 5)]
    (packs,) = plan_packs(rows, ranks=1, budget=16).steps
    assert {pack.rows for pack in packs} == {(0, 1), (2,), (3,)}


def test_a_layout_shares_prompts_and_leaves_the_last_tokens_out() -> None:
    rows: list[TokenRow] = [
        {"prompt_id": "a", "prompt_ids": [1, 2], "completion_ids": [3, 4, 5]},
        {"prompt_id": "a", "prompt_ids": [1, 2], "completion_ids": [6]},
        {"prompt_id": "b", "prompt_ids": [7], "completion_ids": [8, 9]},
    ]
    layout = lay_out(rows)
    assert layout.ids == (1, 2, 3, 4, 7, 8)
    assert layout.positions == (0, 1, 2, 3, 0, 1)
    assert layout.targets == (3, 4, 5, 6, 8, 9)
    assert layout.predictors == (1, 2, 3, 1, 4, 5)
    covered = [(s.start, s.stop, s.prefix_start, s.prefix_stop) for s in layout.segments]
    assert covered == [(0, 2, 0, 0), (2, 4, 0, 2), (4, 5, 0, 0), (5, 6, 4, 5)]
    assert len(lay_out([]).targets) == 1
