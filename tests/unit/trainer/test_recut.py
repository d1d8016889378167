"""A flat state cut for another number of ranks is what these ranks would have had from the beginning."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.errors import CorruptArtifactError
from dynalign_trainer.train.deepspeed.recut import Block, plan_share, read_share
from dynalign_trainer.train.deepspeed.state_names import add_model_files, optimizer_files
from dynalign_trainer.train.reference_pass import RowLogprobs, read_surveys, survey_file, write_survey
from dynalign_trainer.train.state_files import open_state, write_state


def part_of(numel: int, ranks: int, alignment: int) -> int:
    """Values of each rank, as many as make whole multiples of the alignment."""
    return -(-numel // (ranks * alignment)) * alignment


def spread(numels: list[int], ranks: int, alignment: int) -> list[list[float]]:
    """What each rank holds of values 1, 2, 3 ...; padding is 0."""
    held: list[list[float]] = [[] for _ in range(ranks)]
    first = 1
    for numel in numels:
        part = part_of(numel, ranks, alignment)
        values = [float(value) for value in range(first, first + numel)] + [0.0] * (part * ranks - numel)
        for rank in range(ranks):
            held[rank] += values[rank * part : (rank + 1) * part]
        first += numel
    return held


@given(
    numels=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    ranks=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    alignment=st.sampled_from([1, 2, 4]),
    split=st.integers(0, 60),
)
def test_every_rank_gets_what_it_would_have_held(
    tmp_path_factory: pytest.TempPathFactory, numels: list[int], ranks: tuple[int, int], alignment: int, split: int
) -> None:
    import torch

    before, after = ranks

    folder = tmp_path_factory.mktemp("states")
    stored = []
    for rank, values in enumerate(spread(numels, before, alignment)):
        file = folder / f"{rank}"
        write_state([torch.tensor(values[:split]), torch.tensor(values[split:])], file)
        stored.append(open_state(file))
    blocks = [Block(n, part_of(n, before, alignment), part_of(n, after, alignment)) for n in numels]
    found = [read_share(list(plan_share(blocks, rank)), stored).tolist() for rank in range(after)]
    assert found == spread(numels, after, alignment)


def test_a_state_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    import torch

    write_state([torch.zeros(3)], tmp_path / "state")
    with pytest.raises(RuntimeError, match="2 values too early"):
        read_share(list(plan_share([Block(5, 5, 5)], 0)), [open_state(tmp_path / "state")])


def test_shares_of_a_checkpoint_are_found_in_the_order_of_ranks(tmp_path: Path) -> None:
    folder = tmp_path / "global_step3"
    folder.mkdir()
    for rank in (10, 2, 0):
        (folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
    (folder / "zero_pp_rank_0_mp_rank_00_model_states.pt").write_text("alike")
    assert [path.name.split("_")[4] for path in optimizer_files(tmp_path)] == ["0", "2", "10"]
    assert [path.read_text() for path in add_model_files(tmp_path, 3)] == ["alike"] * 2
    assert add_model_files(tmp_path, 2) == []


def test_surveys_of_all_ranks_are_read_for_the_rows_that_are_asked_for(tmp_path: Path) -> None:
    rows = {number: RowLogprobs([-float(number)], [-0.5]) for number in range(5)}
    for rank, numbers in enumerate(([0, 3], [1, 4], [2])):
        write_survey(survey_file(tmp_path, rank), {number: rows[number] for number in numbers})
    assert read_surveys(tmp_path, {4, 0, 2}) == {number: rows[number] for number in (0, 2, 4)}
    with pytest.raises(CorruptArtifactError, match="lacks 1 rows"):
        read_surveys(tmp_path, {4, 5})
