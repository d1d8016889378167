"""Texts as bags of word runs, in which case, punctuation and spacing tell nothing apart. Pure."""

import re
import unicodedata


def normalise(text: str) -> str:
    """The words of a text, separated by single spaces."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def runs(plain: str, words: int) -> set[str]:
    """All runs of `words` words of a normalised text; the whole text where it has fewer."""
    split = plain.split()
    return {" ".join(split[i : i + words]) for i in range(max(1, len(split) - words + 1))}
