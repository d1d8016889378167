"""Diversity of a set of texts. Pure."""

from collections.abc import Iterable


def distinct_n(texts: Iterable[str], n: int) -> float | None:
    """Distinct word n-grams divided by all word n-grams of the texts, 0 to 1 (Li et al., arXiv 1510.03055).

    None when no text has n words.
    """
    total = 0
    seen = set()
    for text in texts:
        words = text.casefold().split()
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        total += len(grams)
        seen.update(grams)
    return len(seen) / total if total else None
