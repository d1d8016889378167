"""The curator (code, no agent): what resembles an earlier prompt, leaks the evaluation or is in a wrong language."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from datasketch import MinHash, MinHashLSH

from dynalign_contract.settings import DedupSettings
from dynalign_trainer.models.languages import LanguageFilter
from dynalign_trainer.prompts.clusters import Clusters
from dynalign_trainer.prompts.decontamination import Protected
from dynalign_trainer.prompts.drafts import Drop
from dynalign_trainer.prompts.normalising import normalise, runs
from dynalign_trainer.prompts.wording import Wording

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


@dataclass(frozen=True)
class _Entry:
    """What is remembered of a prompt."""

    whole: MinHash
    """Signature of all of its turns."""
    own: MinHash
    """Signature of its own words."""
    meaning: str
    """The words that its cluster was found by."""


class Curator:
    """Remembers every prompt that was let in, and keeps out what resembles one of them.

    Near duplicates are pairs whose Jaccard similarity of word shingles, estimated by MinHash (Broder, 1997), reaches
    the threshold, both that of the whole prompts and that of their own words: what prompts share by design, a system
    turn or a seed's opening, does not make them alike.
    """

    def __init__(self, settings: DedupSettings, checks: Checks | None = None) -> None:
        self._settings = settings
        self._checks = checks or Checks()
        bands, rows = lsh_shape(settings.threshold, settings.permutations)
        self._index = MinHashLSH(num_perm=settings.permutations, params=(bands, rows))
        self._entries: dict[str, _Entry] = {}
        """Normalised text -> entry."""

    def remember(self, prompt: Wording) -> None:
        """Let a prompt in, whatever it resembles."""
        self._insert(prompt.text, self._describe(prompt))

    def protect(self, own_words: Iterable[str]) -> None:
        """Keep out drafts that share a run of words with these held-out prompts."""
        self._checks.held_out.add(own_words)

    def admit(self, prompt: Wording) -> Drop | None:
        """Let a prompt in and return None, or say why it stays out."""
        entry = self._describe(prompt)
        cause = self._find_fault(prompt, entry)
        if cause is None:
            self._insert(prompt.text, entry)
        return cause

    def replace(self, old: str, new: Wording) -> Drop | None:
        """Let `new` in for the text `old`, which it may resemble, and return None; or leave `old` in and say why."""
        entry = self._remove(old)
        cause = self.admit(new)
        if cause is not None and entry is not None:
            self._insert(old, entry)
        return cause

    def _find_fault(self, prompt: Wording, entry: _Entry) -> Drop | None:
        checks = self._checks
        if normalise(prompt.text) in self._entries:
            return Drop.DUPLICATE
        if checks.benchmarks.leaks(prompt.turn) or (prompt.is_written and checks.held_out.leaks(prompt.own)):
            return Drop.CONTAMINATED
        if checks.languages is not None and not checks.languages.accepts(prompt.turn):
            return Drop.LANGUAGE
        if any(self._is_near(self._entries[key], entry) for key in self._index.query(entry.whole)):
            return Drop.NEAR_DUPLICATE
        return Drop.CLUSTER if checks.clusters is not None and not checks.clusters.has_room(entry.meaning) else None

    def _is_near(self, one: _Entry, other: _Entry) -> bool:
        threshold = self._settings.threshold
        return bool(one.whole.jaccard(other.whole) >= threshold and one.own.jaccard(other.own) >= threshold)

    def _describe(self, prompt: Wording) -> _Entry:
        whole = self._hash(prompt.text)
        own = prompt.own if normalise(prompt.own) else prompt.text
        return _Entry(whole, whole if own == prompt.text else self._hash(own), own)

    def _hash(self, text: str) -> MinHash:
        hashed = MinHash(num_perm=self._settings.permutations, seed=1)
        shingles = sorted(runs(normalise(text), self._settings.shingle_words))
        hashed.update_batch([shingle.encode() for shingle in shingles])
        return hashed

    def _insert(self, text: str, entry: _Entry) -> None:
        plain = normalise(text)
        if plain in self._entries:
            return
        self._entries[plain] = entry
        self._index.insert(plain, entry.whole)
        if self._checks.clusters is not None:
            self._checks.clusters.add(entry.meaning)

    def _remove(self, text: str) -> _Entry | None:
        """Forget a prompt, and return what was remembered of it."""
        plain = normalise(text)
        entry = self._entries.pop(plain, None)
        if entry is None:
            return None
        self._index.remove(plain)
        if self._checks.clusters is not None:
            self._checks.clusters.remove(entry.meaning)
        return entry


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
