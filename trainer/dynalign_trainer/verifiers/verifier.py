"""The verifiers of a run: each has a name, a weight and a range, and values an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dynalign_contract.errors import BadConfigError
from dynalign_contract.settings import Comparison, LengthUnit, RewardRange, RewardSettings, RewardType
from dynalign_trainer.models.languages import LanguageFilter
from dynalign_trainer.verifiers.answer import Answer, Check
from dynalign_trainer.verifiers.json_schema import json_schema_check
from dynalign_trainer.verifiers.matching import match_check
from dynalign_trainer.verifiers.patterns import Pattern
from dynalign_trainer.verifiers.text_checks import forbidden_text_check, language_check, length_check, regex_check

T = TypeVar("T")


@dataclass(frozen=True)
class Verifier:
    """A check with its place in the reward."""

    name: str
    weight: float
    range: RewardRange
    check: Check

    def value(self, answer: Answer) -> float:
        """What the answer is worth, within the range; NaN where the check cannot decide."""
        low, high = self.range.low, self.range.high
        return low + (high - low) * self.check(answer)


def build_verifiers(rewards: Sequence[RewardSettings]) -> tuple[Verifier, ...]:
    """The verifiers of a run, in its order.

    Raises BadConfigError naming the field of a pattern, a JSON schema or a language that cannot be used.
    """
    return tuple(
        Verifier(reward.name, reward.weight, reward.range, _build_check(reward, f"rewards[{index}]"))
        for index, reward in enumerate(rewards)
    )


def verify(verifiers: Sequence[Verifier], answer: Answer) -> dict[str, float]:
    """Name -> value of each verifier for an answer; NaN where one cannot decide."""
    return {verifier.name: verifier.value(answer) for verifier in verifiers}


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


def _needed(value: T | None, field: str, name: str) -> T:
    if value is None:
        raise BadConfigError(f"{field}.{name} is missing; write it, or choose another type.")
    return value
