"""Held-out answers before and after training, joined from the evaluations of all iterations."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NotRequired, TypedDict

from dynalign_contract.config import BASE_POLICY, policy_version
from dynalign_contract.layout import ANSWERS_FILE, COMPARISONS_FILE
from dynalign_contract.records import COMPARISON, ComparisonRow, Table, read_rows
from dynalign_contract.records.columns import Messages, Numbers, Text
from dynalign_report.facts import Comparison, HeldOutAnswer, HeldOutPrompt
from dynalign_report.groups import number, numbers, turns


class _AnswerRow(TypedDict):
    """The columns of a held-out answer that people read."""

    prompt_id: Text
    policy: Text
    messages: Messages
    text: Text
    thought: NotRequired[Text]
    verifiers: NotRequired[Numbers]


_ANSWERS: Final = Table(_AnswerRow)


def read_held_out(evaluations: Mapping[int, Path]) -> tuple[HeldOutPrompt, ...]:
    """Held-out prompts by id, from the folders of finished evaluations by iteration. Raises CorruptArtifactError."""
    before: dict[str, _AnswerRow] = {}
    after: dict[str, list[HeldOutAnswer]] = {}
    for iteration, folder in sorted(evaluations.items()):
        comparisons = _by_prompt(folder / COMPARISONS_FILE, policy_version(iteration))
        rows = read_rows(folder / ANSWERS_FILE, _ANSWERS) if (folder / ANSWERS_FILE).is_file() else []
        before |= {row["prompt_id"]: row for row in rows if row["policy"] == BASE_POLICY}
        for row in rows:
            if row["policy"] == policy_version(iteration) and row["prompt_id"] in before:
                base = before[row["prompt_id"]]["text"]
                answer = _answer(row, iteration, base, comparisons.get(row["prompt_id"], ()))
                after.setdefault(row["prompt_id"], []).append(answer)
    return tuple(
        HeldOutPrompt(
            prompt_id=prompt_id,
            messages=turns(row["messages"]),
            before=row["text"],
            before_verifiers=numbers(row.get("verifiers", {})),
            after=tuple(after.get(prompt_id, ())),
        )
        for prompt_id, row in sorted(before.items())
    )


def _answer(row: _AnswerRow, iteration: int, base: str, comparisons: tuple[Comparison, ...]) -> HeldOutAnswer:
    return HeldOutAnswer(
        iteration=iteration,
        text=row["text"],
        thought=row.get("thought", ""),
        change=changed_share(base, row["text"]),
        comparisons=comparisons,
        verifiers=numbers(row.get("verifiers", {})),
    )


def _by_prompt(file: Path, policy: str) -> dict[str, tuple[Comparison, ...]]:
    rows = [row for row in read_rows(file, COMPARISON) if row["policy"] == policy] if file.is_file() else []
    found: dict[str, tuple[Comparison, ...]] = {}
    for row in rows:
        found[row["prompt_id"]] = (*found.get(row["prompt_id"], ()), _comparison(row))
    return found


def _comparison(row: ComparisonRow) -> Comparison:
    return Comparison(
        judge=row["judge"],
        opponent=row["opponent"],
        outcome=number(row["outcome"]),
        first=number(row["first"]),
        second=number(row["second"]),
    )


def changed_share(before: str, after: str) -> float:
    """Share of the words of two texts that only one of them has, 0 to 1; 0 for equal texts."""
    if before == after:
        return 0.0
    first, second = Counter(before.split()), Counter(after.split())
    total = first.total() + second.total()
    return round(((first - second).total() + (second - first).total()) / total, 4) if total else 1.0
