"""The curator (code, no agent): what resembles an earlier prompt, leaks the evaluation or is in a wrong language."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from datasketch import MinHash, MinHashLSH

from dynalign_contract.settings import DedupSettings
from dynalign_trainer.languages import LanguageFilter
from dynalign_trainer.prompts.clusters import Clusters
from dynalign_trainer.prompts.decontamination import Protected
from dynalign_trainer.prompts.drafts import Drop
from dynalign_trainer.prompts.normalising import normalise, runs

_RECALL = 0.999
"""Probability that the index proposes a pair exactly at the threshold; the estimate then decides."""


@dataclass
class Checks:
    """What a curator looks at beside duplicates."""

    benchmarks: Protected = field(default_factory=lambda: Protected(0))
    """What tasks and benchmarks ask."""
    held_out: Protected = field(default_factory=lambda: Protected(0))
    """The held-out prompts, without what their seeds dictated."""
    languages: LanguageFilter | None = None
    clusters: Clusters | None = None


class Curator:
    """Remembers every prompt that was let in, and keeps out what resembles one of them.

    Near duplicates are pairs whose Jaccard similarity of word shingles, estimated by MinHash (Broder, 1997), reaches
    the threshold.
    """

    def __init__(self, settings: DedupSettings, checks: Checks | None = None) -> None:
        self._settings = settings
        self._checks = checks or Checks()
        bands, rows = lsh_shape(settings.threshold, settings.permutations)
        self._index = MinHashLSH(num_perm=settings.permutations, params=(bands, rows))
        self._hashes: dict[str, MinHash] = {}
        self._meanings: dict[str, str] = {}
        """Normalised text -> the words that its cluster was found by."""

    def remember(self, text: str, own_words: str = "") -> None:
        """Let a prompt in, whatever it resembles."""
        self._insert(text, own_words or text)

    def protect(self, own_words: Iterable[str]) -> None:
        """Keep out drafts that share a run of words with these held-out prompts."""
        self._checks.held_out.add(own_words)

    def admit(self, text: str, own_words: str = "") -> Drop | None:
        """Let a prompt in and return None, or say why it stays out.

        `own_words` are those that no seed has dictated; they are held against the held-out prompts and say what the
        prompt means. A prompt that the user supplied has none: its phrases may be those of all of the user's prompts,
        held-out ones included.
        """
        cause = self._find_fault(text, own_words)
        if cause is None:
            self._insert(text, own_words or text)
        return cause

    def exchange(self, old: str, new: str, own_words: str) -> Drop | None:
        """Let `new` in for `old`, which it may resemble, and return None; or leave `old` in and say why."""
        meaning = self._remove(old)
        cause = self.admit(new, own_words)
        if cause is not None:
            self._insert(old, meaning)
        return cause

    def _find_fault(self, text: str, own_words: str) -> Drop | None:
        plain, checks = normalise(text), self._checks
        if plain in self._hashes:
            return Drop.DUPLICATE
        if checks.benchmarks.leaks(text) or checks.held_out.leaks(own_words):
            return Drop.CONTAMINATED
        if checks.languages is not None and not checks.languages.lets_pass(text):
            return Drop.LANGUAGE
        hashed = self._hash(plain)
        near = (self._hashes[key].jaccard(hashed) for key in self._index.query(hashed))
        if any(similarity >= self._settings.threshold for similarity in near):
            return Drop.NEAR_DUPLICATE
        return Drop.CLUSTER if checks.clusters is not None and not checks.clusters.has_room(own_words or text) else None

    def _hash(self, plain: str) -> MinHash:
        hashed = MinHash(num_perm=self._settings.permutations, seed=1)
        hashed.update_batch([shingle.encode() for shingle in sorted(runs(plain, self._settings.shingle_words))])
        return hashed

    def _insert(self, text: str, meaning: str) -> None:
        plain = normalise(text)
        if plain in self._hashes:
            return
        self._hashes[plain], self._meanings[plain] = self._hash(plain), meaning
        self._index.insert(plain, self._hashes[plain])
        if self._checks.clusters is not None:
            self._checks.clusters.add(meaning)

    def _remove(self, text: str) -> str:
        """Forget a prompt; returns the words that its cluster was found by."""
        plain = normalise(text)
        if self._hashes.pop(plain, None) is None:
            return text
        self._index.remove(plain)
        meaning = self._meanings.pop(plain)
        if self._checks.clusters is not None:
            self._checks.clusters.remove(meaning)
        return meaning


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
