"""Checks of an answer's form: its length, its language, words that it must not use."""

from collections.abc import Sequence

from dynalign_contract.settings import LengthUnit
from dynalign_trainer.models.languages import recognise_language
from dynalign_trainer.verifiers.answer import UNDECIDED, Answer, Check, verdict
from dynalign_trainer.verifiers.patterns import Pattern


def regex_check(pattern: Pattern) -> Check:
    """Check that a pattern occurs in the answer."""
    return lambda answer: verdict(pattern.matches(answer.text))


def length_check(unit: LengthUnit, least: int | None, most: int | None) -> Check:
    """Check that the answer's length lies within two bounds, both included; None: no bound."""

    def check(answer: Answer) -> float:
        length = answer.tokens if unit is LengthUnit.TOKENS else len(answer.text)
        return verdict((least is None or length >= least) and (most is None or length <= most))

    return check


def language_check(languages: Sequence[str]) -> Check:
    """Check that the answer is in one of the languages; one too short to tell is undecided."""
    wanted = frozenset(languages)

    def check(answer: Answer) -> float:
        found = recognise_language(answer.text)
        return UNDECIDED if found is None else verdict(found in wanted)

    return check


def forbidden_text_check(texts: Sequence[str]) -> Check:
    """Check that none of the texts occurs in the answer, in upper or lower case."""
    folded = tuple(text.casefold() for text in texts)

    def check(answer: Answer) -> float:
        text = answer.text.casefold()
        return verdict(not any(word in text for word in folded))

    return check
