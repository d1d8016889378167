"""What an evaluation has found prompt by prompt and item by item, before anything is computed from it.

It is read from the files that hold it, whether one pod has written them or several have written their shares: what is
computed from it is the same, to the last digit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.layout import ANSWERS_FILE, CAPABILITY_FILE, COMPARISONS_FILE
from dynalign_contract.records import (
    ANSWER,
    CAPABILITY,
    COMPARISON,
    AnswerRow,
    CapabilityRow,
    ComparisonRow,
    PromptRow,
    read_rows,
    write_rows,
)
from dynalign_contract.settings import EvaluationJudge, WinRateMethod
from dynalign_trainer.evaluate.comparing import Pair
from dynalign_trainer.evaluate.comparison_sets import BASE, PREVIOUS
from dynalign_trainer.evaluate.splitting import Part, interleave, interleave_groups
from dynalign_trainer.evaluate.statistics import Comparison

R = TypeVar("R")


@dataclass(frozen=True)
class Findings:
    """The rows of one evaluation."""

    answers: Mapping[str, list[AnswerRow]]
    """Policy version -> ANSWER rows, in the order of the prompts."""
    comparisons: list[ComparisonRow]
    """Comparison set by comparison set (`contests`), each in the order of the prompts."""
    capability: list[CapabilityRow]

    @property
    def files(self) -> dict[str, int]:
        """File -> rows."""
        files = {ANSWERS_FILE: sum(map(len, self.answers.values())), COMPARISONS_FILE: len(self.comparisons)}
        return files | ({CAPABILITY_FILE: len(self.capability)} if self.capability else {})

    def comparisons_of(self, params: EvaluateParams) -> dict[tuple[str, EvaluationJudge], list[Comparison]]:
        """Opponent and judge -> comparisons, one for each prompt in order."""
        count = len(self.answers[params.policy.version])
        return {
            (name, judge): [
                _comparison(row, Pair(*pair))
                for row, *pair in zip(
                    self.comparisons[place * count : (place + 1) * count],
                    self.answers[params.policy.version],
                    self.answers[opponent.version],
                    strict=True,
                )
            ]
            for place, (judge, (name, opponent)) in enumerate(contests(params))
        }

    def write(self, folder: Path) -> None:
        """Write the files of the evaluation."""
        write_rows(folder / ANSWERS_FILE, [row for rows in self.answers.values() for row in rows], ANSWER)
        write_rows(folder / COMPARISONS_FILE, self.comparisons, COMPARISON)
        if self.capability:
            write_rows(folder / CAPABILITY_FILE, self.capability, CAPABILITY)


def policies_of(params: EvaluateParams) -> dict[str, Policy]:
    """Version -> policy of everyone who answers: the base model, the policy before, and the one under evaluation."""
    return {policy.version: policy for policy in (Policy(), params.previous, params.policy)}


def opponents_of(params: EvaluateParams) -> dict[str, Policy]:
    """Name -> policy of those that the policy under evaluation is compared with."""
    previous = {PREVIOUS: params.previous} if params.previous.version != BASE else {}
    return {BASE: Policy()} | previous


def contests(params: EvaluateParams) -> Iterator[tuple[EvaluationJudge, tuple[str, Policy]]]:
    """Judge and opponent of each comparison set, in the order of the records."""
    return product(params.evaluation.win_rate.judges, opponents_of(params).items())


def read_findings(params: EvaluateParams, folders: Sequence[Path], prompts: Sequence[PromptRow]) -> Findings:
    """Read the files in these folders: that of the evaluation, or those of all its shares, by index.

    `prompts` are all held-out prompts. Raises CorruptArtifactError when a file cannot be read, or the shares are not
    those of these prompts.
    """
    count, versions = len(folders), list(policies_of(params))
    parts = [Part(index, count).of(prompts) for index in range(count)]
    answers = [
        _split(read_rows(folder / ANSWERS_FILE, ANSWER), len(versions), len(part), folder)
        for folder, part in zip(folders, parts, strict=True)
    ]
    sets = len(list(contests(params)))
    comparisons = [
        _split(read_rows(folder / COMPARISONS_FILE, COMPARISON), sets, len(part), folder)
        for folder, part in zip(folders, parts, strict=True)
    ]
    merged = {version: interleave([share[place] for share in answers]) for place, version in enumerate(versions)}
    return Findings(
        answers=merged,
        comparisons=[row for place in range(sets) for row in interleave([share[place] for share in comparisons])],
        capability=interleave_groups([_read_capability(folder) for folder in folders], _task_of),
    )


def _split(rows: Sequence[R], groups: int, size: int, folder: Path) -> list[Sequence[R]]:
    if len(rows) != groups * size:
        raise CorruptArtifactError(
            f"{folder} holds {len(rows)} rows where {groups * size} are wanted. Remove it to have its stage run again."
        )
    return [rows[place * size : (place + 1) * size] for place in range(groups)]


def _read_capability(folder: Path) -> list[CapabilityRow]:
    path = folder / CAPABILITY_FILE
    return read_rows(path, CAPABILITY) if path.exists() else []


def _task_of(row: CapabilityRow) -> tuple[str, str, str]:
    return row["task"], row["policy"], row["item"].rpartition("/")[0]


def _comparison(row: ComparisonRow, pair: Pair) -> Comparison:
    both_orders = row["method"] == WinRateMethod.PAIRWISE and not pair.identical
    return Comparison(row["first"], row["second"], row["outcome"], row["length_difference"], both_orders=both_orders)
