"""Answers that say what a column of their prompt's row says."""

import math
import re
from typing import Final

from dynalign_contract.settings import Comparison
from dynalign_trainer.verifiers.answer import FAILED, UNDECIDED, Answer, Check, verdict
from dynalign_trainer.verifiers.patterns import Pattern

_NUMBER: Final = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_ROUNDING: Final = 1e-9
"""Relative difference of two numbers that count as equal."""


def match_check(column: str, comparison: Comparison, tolerance: float, part: Pattern | None) -> Check:
    """Compare an answer, or the part of it that the pattern finds, with a column.

    An answer in which the pattern or a number is not found fails; an answer whose prompt has no such column, or no
    number in it where numbers are compared, is undecided.
    """

    def check(answer: Answer) -> float:
        wanted = answer.columns.get(column)
        if wanted is None:
            return UNDECIDED
        given = answer.text if part is None else part.find(answer.text)
        if comparison is Comparison.NUMERIC and last_number(wanted) is None:
            return UNDECIDED
        if given is None:
            return FAILED
        if comparison is Comparison.NUMERIC:
            return verdict(_same_number(last_number(given), last_number(wanted), tolerance))
        return verdict(given.split() == wanted.split())

    return check


def last_number(text: str) -> float | None:
    """The last number of a text, with a point before its fraction and perhaps commas between thousands."""
    found = _NUMBER.findall(text)
    value = float(found[-1].replace(",", "")) if found else math.nan
    return value if math.isfinite(value) else None


def _same_number(given: float | None, wanted: float | None, tolerance: float) -> bool:
    if given is None or wanted is None:
        return False
    return abs(given - wanted) <= tolerance or math.isclose(given, wanted, rel_tol=_ROUNDING)
