"""How prompts are dealt out to several engines."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.errors import BadConfigError
from dynalign_contract.settings import EngineSettings
from dynalign_trainer.models.dealing import deal, deal_prompts, fill_up, filled
from dynalign_trainer.models.device_shares import Share, share_cores, share_gpus

ENGINES = st.integers(1, 16)
LOADS = st.lists(st.integers(0, 500), min_size=1, max_size=16)


@st.composite
def answers_with_questions(draw: st.DrawFn) -> list[list[list[int]]]:
    """Prompts by answer: those of an answer begin with it, which is as long as all of its questions together."""
    rubric = [7] * draw(st.integers(0, 30))
    found = []
    for answer in range(draw(st.integers(1, 24))):
        questions = draw(st.lists(st.integers(1, 20), min_size=1, max_size=6))
        text = [100 + answer] * draw(st.integers(sum(questions) + len(rubric), 400))
        found.append([[*rubric, *text, *[1000 + k] * size] for k, size in enumerate(questions)])
    return found


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), LOADS)
def test_every_item_goes_to_one_engine_and_the_order_is_kept(costs: list[int], loads: list[int]) -> None:
    pieces = deal(costs, [0] * len(costs), loads)
    assert len(pieces) == len(loads)
    assert [item for piece in pieces for item in range(len(costs))[piece]] == list(range(len(costs)))


@given(answers_with_questions(), ENGINES)
def test_the_questions_about_an_answer_go_to_one_engine(answers: list[list[list[int]]], engines: int) -> None:
    prompts = list(chain.from_iterable(answers))
    owners = [index for index, answer in enumerate(answers) for _ in answer]
    seen = [{owners[item] for item in range(len(prompts))[piece]} for piece in deal_prompts(prompts, engines)]
    assert sum(map(len, seen)) == len(answers)


def test_one_long_answer_is_divided_where_that_saves_more_than_reading_it_twice() -> None:
    questions = [[*[1] * 10, *[100 + k] * 200] for k in range(4)]
    assert [piece.stop - piece.start for piece in deal_prompts(questions, 2)] == [2, 2]


@given(st.lists(st.integers(1, 8), min_size=1, max_size=60), LOADS)
def test_no_engine_has_more_than_its_fair_part_and_one_item(costs: list[int], loads: list[int]) -> None:
    fair = fill_up(loads, sum(costs))
    assert sum(fair) == pytest.approx(sum(costs))
    for index, piece in enumerate(deal(costs, [0] * len(costs), loads)):
        assert sum(costs[piece]) <= fair[index] + max(costs)


@given(LOADS, st.integers(1, 10_000))
def test_what_comes_in_fills_up_the_idlest_engines(loads: list[int], more: int) -> None:
    after = [load + part for load, part in zip(loads, fill_up(loads, more), strict=True)]
    grown = [level for level, load in zip(after, loads, strict=True) if level > load]
    assert max(grown) == pytest.approx(min(grown))
    assert min(after) == pytest.approx(min(grown))


def test_fewer_prompts_than_engines_leave_some_of_them_idle() -> None:
    assert len(list(filled(deal([1, 1], [0, 0], [0] * 8)))) == 2
    assert [index for index, _ in filled(deal([1], [0], [3, 0, 3]))] == [1]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0,1", "2,3"]),
        ("", ["0,1", "2,3"]),
        ("4,5,6,7", ["4,5", "6,7"]),
        ("GPU-a, GPU-b, GPU-c, GPU-d", ["GPU-a,GPU-b", "GPU-c,GPU-d"]),
    ],
)
def test_each_engine_sees_its_own_gpus(visible: str | None, expected: list[str]) -> None:
    settings = EngineSettings(tensor_parallel=2, replicas=2)
    shares = share_gpus(settings, 4, visible)
    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares] == expected
    assert settings.gpus == 4


def test_too_few_gpus_are_a_wrong_configuration() -> None:
    with pytest.raises(BadConfigError, match=r"replicas is 4 .* offers 2 GPUs.* at most 2"):
        share_gpus(EngineSettings(replicas=4), 2, None)


def test_cores_and_threads_are_divided_and_no_engine_goes_without() -> None:
    def of(threads: int, cores: tuple[int, ...]) -> Share:
        return Share({"OMP_NUM_THREADS": str(threads)}, cores)

    assert share_cores(EngineSettings(replicas=2), range(4), 4) == [of(2, (0, 1)), of(2, (2, 3))]
    assert share_cores(EngineSettings(replicas=2), range(4), 1) == [of(1, (0, 1)), of(1, (2, 3))]
    assert share_cores(EngineSettings(replicas=8), [5, 9], 2) == [of(1, (5,)), of(1, (9,))]
