"""Verifiers of held-out answers: their column, their mean, and the difference to the base model with its interval."""

import math
from typing import Any

import pytest

from dynalign_contract.metrics import EvaluateMetrics
from dynalign_contract.records import AnswerRow, PromptRow
from dynalign_contract.settings import RewardSettings
from dynalign_trainer.evaluate.verified import verifier_metrics, with_values
from dynalign_trainer.verifiers.verifier import build_verifier

MATCH = {"name": "right", "type": "Match", "column": "answer", "comparison": "Numeric"}
DIGIT = {"name": "digit", "type": "Regex", "pattern": r"\d", "range": {"low": -1}}
OPTIONS: Any = {"confidence": 0.95, "resamples": 500, "seed": 1}


def prompts(*answers: str | None) -> list[PromptRow]:
    rows: Any = [
        {"prompt_id": f"p{i}", "messages": [], "columns": {} if a is None else {"answer": a}}
        for i, a in enumerate(answers)
    ]
    return list(rows)


def answers(*texts: str) -> list[AnswerRow]:
    rows: Any = [{"prompt_id": f"p{i}", "text": text, "completion_ids": [1, 2]} for i, text in enumerate(texts)]
    return list(rows)


def valued(*texts: str, known: tuple[str | None, ...]) -> list[AnswerRow]:
    verifiers = [build_verifier(RewardSettings.model_validate(reward), "rewards[0]") for reward in (MATCH, DIGIT)]
    return with_values(verifiers, prompts(*known), answers(*texts))


def test_answers_get_the_values_of_every_verifier_with_the_columns_of_their_prompt() -> None:
    rows = valued("7", "8", "none", known=("7", "7", "7"))
    assert [row["verifiers"] for row in rows] == [
        {"right": 1.0, "digit": 1.0},
        {"right": 0.0, "digit": 1.0},
        {"right": 0.0, "digit": -1.0},
    ]


def test_without_verifiers_rows_are_as_they_were() -> None:
    assert with_values((), prompts("7"), answers("7")) == answers("7")
    assert verifier_metrics(answers("7"), answers("8"), **OPTIONS) == {}


def test_the_difference_is_that_of_the_same_prompts_and_undecided_ones_are_left_out() -> None:
    known = ("1", "2", "3", None)
    found = verifier_metrics(
        valued("1", "2", "x", "9", known=known), valued("1", "x", "x", "9", known=known), **OPTIONS
    )
    assert found[EvaluateMetrics.verifier_value.of("right")] == pytest.approx(2 / 3)
    change = EvaluateMetrics.verifier_delta.members({name: v for name, v in found.items() if v is not None})["right"]
    assert change.value == pytest.approx(1 / 3)
    assert change.low == 0
    assert change.high is not None
    assert 1 / 3 < change.high <= 1


def test_a_policy_that_always_passes_where_the_base_never_does_has_changed_by_the_whole_range() -> None:
    found = verifier_metrics(valued("1", "2", known=("1", "2")), valued("x", "x", known=("1", "2")), **OPTIONS)
    low = found[EvaluateMetrics.verifier_delta.low.of("digit")]
    assert (low, found[EvaluateMetrics.verifier_delta.value.of("digit")]) == (2.0, 2.0)


def test_nothing_is_said_of_what_no_prompt_decides() -> None:
    found = verifier_metrics(valued("1", known=(None,)), valued("1", known=(None,)), **OPTIONS)
    value = found[EvaluateMetrics.verifier_value.of("right")]
    assert value is None or math.isnan(value)
    assert found[EvaluateMetrics.verifier_delta.value.of("right")] is None
    assert found[EvaluateMetrics.verifier_delta.low.of("digit")] is None, "one answer has no interval"
