"""Keeps what the evaluation asks out of training: no prompt may share a run of words with it. Pure."""

from collections.abc import Iterable

from dynalign_trainer.prompts.normalising import normalise, runs


class Protected:
    """Runs of words of the texts that must not leak, as in the overlap analysis of GPT-3 (arXiv 2005.14165, C)."""

    def __init__(self, words: int) -> None:
        """`words` is the length of a run; 0 protects nothing."""
        self._words = words
        self._runs: set[str] = set()

    def add(self, texts: Iterable[str]) -> None:
        """Protect these texts; one shorter than a run has none and protects nothing but itself, as a duplicate."""
        for text in texts:
            self._runs |= self._runs_of(text)

    def leaks(self, text: str) -> bool:
        """Whether the text shares a run with a protected one."""
        return not self._runs.isdisjoint(self._runs_of(text))

    def _runs_of(self, text: str) -> set[str]:
        plain = normalise(text)
        if not self._words or plain.count(" ") + 1 < self._words:
            return set()
        return runs(plain, self._words)
