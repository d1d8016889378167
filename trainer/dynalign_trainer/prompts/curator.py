"""The curator (code, no agent): exact and near duplicates, and length limits."""

import re
import unicodedata
from collections.abc import Callable, Iterable

from datasketch import MinHash, MinHashLSH

from dynalign_contract.settings import DedupSettings
from dynalign_trainer.prompts.drafts import Drop

_RECALL = 0.999
"""Probability that the index proposes a pair exactly at the threshold; the estimate then decides."""


class Curator:
    """Remembers every prompt that was let in, and keeps out what resembles one of them.

    Near duplicates are pairs whose Jaccard similarity of word shingles, estimated by MinHash (Broder, 1997), reaches
    the threshold.
    """

    def __init__(self, settings: DedupSettings) -> None:
        self._settings = settings
        self._texts: set[str] = set()
        bands, rows = lsh_shape(settings.threshold, settings.permutations)
        self._index = MinHashLSH(num_perm=settings.permutations, params=(bands, rows))
        self._hashes: list[MinHash] = []

    def remember(self, text: str) -> None:
        """Let a prompt in, whatever it resembles."""
        self._insert(normalise(text), self._hash(text))

    def admit(self, text: str) -> Drop | None:
        """Let a prompt in and return None, or say why it stays out."""
        plain = normalise(text)
        if plain in self._texts:
            return Drop.DUPLICATE
        hashed = self._hash(text)
        near = (self._hashes[key].jaccard(hashed) for key in self._index.query(hashed))
        if any(similarity >= self._settings.threshold for similarity in near):
            return Drop.NEAR_DUPLICATE
        self._insert(plain, hashed)
        return None

    def _hash(self, text: str) -> MinHash:
        hashed = MinHash(num_perm=self._settings.permutations, seed=1)
        hashed.update_batch(
            [shingle.encode() for shingle in sorted(shingles(normalise(text), self._settings.shingle_words))]
        )
        return hashed

    def _insert(self, plain: str, hashed: MinHash) -> None:
        if plain not in self._texts:
            self._texts.add(plain)
            self._index.insert(len(self._hashes), hashed)
            self._hashes.append(hashed)


def normalise(text: str) -> str:
    """The words of a text: case, punctuation and spacing do not tell prompts apart."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def shingles(plain: str, words: int) -> set[str]:
    """All runs of `words` words; the whole text where it has fewer."""
    split = plain.split()
    return {" ".join(split[i : i + words]) for i in range(max(1, len(split) - words + 1))}


def lsh_shape(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and rows of the index: the most selective that still proposes a pair at the threshold almost surely.

    A pair of similarity s is proposed with probability 1 - (1 - s^rows)^bands.
    """
    for rows in range(permutations // 2, 0, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return permutations, 1


def check_length(text: str, tokens: Callable[[str], int], *, min_characters: int, max_tokens: int) -> Drop | None:
    """Whether a prompt is too short in characters or, with its chat template, too long in tokens."""
    if not text:
        return Drop.UNFINISHED
    if len(text) < min_characters:
        return Drop.SHORT
    return Drop.LONG if tokens(text) > max_tokens else None


def remember_all(curator: Curator, texts: Iterable[str]) -> None:
    """Let in everything that earlier iterations, or the held-out set, already have."""
    for text in texts:
        curator.remember(text)
