"""The verifiers of a run: each has a name and a weight, and says what answers are worth."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

from dynalign_contract.errors import BadConfigError
from dynalign_contract.settings import Comparison, LengthUnit, RewardSettings, RewardType
from dynalign_trainer.models.languages import LanguageFilter
from dynalign_trainer.verifiers.answer import Answer, Check
from dynalign_trainer.verifiers.json_schema import json_schema_check
from dynalign_trainer.verifiers.matching import match_check
from dynalign_trainer.verifiers.patterns import Pattern
from dynalign_trainer.verifiers.text_checks import forbidden_text_check, language_check, length_check, regex_check

T = TypeVar("T")

OUTSIDE: Final = frozenset({RewardType.HTTP, RewardType.PYTHON})
"""Types whose values come from elsewhere, in batches."""


Score: TypeAlias = Callable[[Sequence[Answer]], list[float]]
"""Answers -> what each is worth, within the range; NaN where that is not found out."""


@dataclass(frozen=True)
class Verifier:
    """A part of the reward beside the judge's."""

    name: str
    weight: float
    score: Score
    failures: Counter[str] = field(default_factory=Counter)
    """Reason -> answers that were left undecided for it, where a reason is known."""


def verify(verifiers: Sequence[Verifier], answers: Sequence[Answer]) -> list[dict[str, float]]:
    """For each answer: name -> value of each verifier; NaN where one cannot decide."""
    columns = [(verifier.name, verifier.score(answers)) for verifier in verifiers]
    return [{name: values[i] for name, values in columns} for i in range(len(answers))]


def build_verifier(reward: RewardSettings, field: str) -> Verifier:
    """A verifier of a built-in type.

    Raises BadConfigError naming the field of a pattern, a JSON schema or a language that cannot be used.
    """
    check = _build_check(reward, field)
    low, high = reward.range.low, reward.range.high

    def score(answers: Sequence[Answer]) -> list[float]:
        return [low + (high - low) * check(answer) for answer in answers]

    return Verifier(reward.name, reward.weight, score)


def explain_failures(verifiers: Sequence[Verifier]) -> str:
    """The most frequent reason of each verifier for undecided answers, as sentences; empty where none is known."""
    return " ".join(
        f"{verifier.name} left answers undecided ({count}): {reason.rstrip('.')}."
        for verifier in verifiers
        for reason, count in verifier.failures.most_common(1)
    )


def weights_of(verifiers: Sequence[Verifier]) -> Mapping[str, float]:
    """Name -> weight of each verifier."""
    return {verifier.name: verifier.weight for verifier in verifiers}


def _build_check(reward: RewardSettings, field: str) -> Check:
    pattern = None if reward.pattern is None else Pattern(reward.pattern, f"{field}.pattern")
    match reward.type:
        case RewardType.REGEX:
            return regex_check(_needed(pattern, field, "pattern"))
        case RewardType.JSON_SCHEMA:
            return json_schema_check(_needed(reward.json_schema, field, "schema"), f"{field}.schema")
        case RewardType.LENGTH:
            return length_check(reward.unit or LengthUnit.TOKENS, reward.min, reward.max)
        case RewardType.LANGUAGE:
            LanguageFilter(reward.languages, f"{field}.languages")
            return language_check(reward.languages)
        case RewardType.MATCH:
            comparison = reward.comparison or Comparison.EXACT
            return match_check(_needed(reward.column, field, "column"), comparison, reward.tolerance or 0.0, pattern)
        case RewardType.FORBIDDEN_TEXT:
            return forbidden_text_check(reward.texts)
        case RewardType.HTTP | RewardType.PYTHON:
            raise ValueError(f"{reward.type} is no built-in type")


def _needed(value: T | None, field: str, name: str) -> T:
    if value is None:
        raise BadConfigError(f"{field}.{name} is missing; write it, or choose another type.")
    return value
