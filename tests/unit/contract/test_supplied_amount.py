"""How a file of prompts is shared out between the held-out set and training, and when it is too small."""

from pathlib import Path

import pytest

from dynalign_contract.settings import PromptSettings, SuppliedPrompts
from dynalign_contract.supplied.amount import explain_shortage, share_out


def settings(per_iteration: int, held_out: int = 64, share: float = 1.0) -> PromptSettings:
    supplied = SuppliedPrompts(uri="/data/mine.jsonl", share=share)
    return PromptSettings(per_iteration=per_iteration, held_out=held_out, supplied=supplied)


@pytest.mark.parametrize(
    ("per_iteration", "held_out", "share", "rows", "expected"),
    [
        (64, 64, 1.0, 20, (4, 16)),
        (64, 64, 1.0, 128, (64, 64)),
        (64, 64, 1.0, 1000, (64, 936)),
        (8, 1, 1.0, 12, (1, 11)),
        (64, 64, 0.5, 20, (4, 16)),
        (64, 64, 0.5, 100, (32, 68)),
        (4, 1, 1.0, 1, (0, 1)),
    ],
)
def test_a_fifth_is_held_out_or_what_training_leaves(
    per_iteration: int, held_out: int, share: float, rows: int, expected: tuple[int, int]
) -> None:
    amount = share_out(settings(per_iteration, held_out, share), rows)
    assert (amount.held_out, amount.training) == expected


@pytest.mark.parametrize(
    ("per_iteration", "share", "rows", "lower"),
    [
        (64, 1.0, 10, 8),
        (64, 1.0, 1, 1),
        (512, 0.9, 40, 35),
        (64, 1.0, 100, None),
        (64, 1.0, 60, None),
        (64, 0.25, 4, None),
    ],
)
def test_a_file_that_is_too_small_is_said_with_the_number_that_would_do(
    per_iteration: int, share: float, rows: int, lower: int | None
) -> None:
    text = explain_shortage(settings(per_iteration, share=share), rows, Path("/data/mine.jsonl"))
    if lower is None:
        assert text is None
        return
    assert text is not None
    for word in (
        f"spec.prompts.perIteration is {per_iteration}",
        "/data/mine.jsonl",
        f"{rows} ",
        "spec.prompts.supplied.share",
    ):
        assert word in text
    assert f"Lower spec.prompts.perIteration to {lower}," in text
    assert explain_shortage(settings(lower, held_out=64, share=share), rows, Path("x")) is None


def test_without_a_file_nothing_is_missing() -> None:
    assert explain_shortage(PromptSettings(), 0, Path("x")) is None
