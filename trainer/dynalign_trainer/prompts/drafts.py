"""Drafts of prompts, and why some are not used."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from dynalign_trainer.prompts.seeds import Seed

_SAMPLES = 3


class Drop(StrEnum):
    """Why a draft is not used."""

    UNFINISHED = "unfinished"
    """No whole sentence was left after cleaning."""
    SHORT = "short"
    LONG = "long"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near-duplicate"
    LOW_SCORE = "low-score"


@dataclass(frozen=True)
class Draft:
    """A prompt that an agent has written."""

    text: str
    seed: Seed
    score: float = float("nan")
    """The critic's expected digit, mean over its criteria, 0 to 9; NaN where no critic has looked."""


@dataclass
class Tally:
    """What became of the drafts of one set of prompts."""

    drafts: int = 0
    tokens: int = 0
    """Tokens that the agents have read and written."""
    dropped: Counter[Drop] = field(default_factory=Counter)
    samples: list[tuple[Drop, str]] = field(default_factory=list)
    """The first few dropped texts, for people."""

    def drop(self, cause: Drop, text: str) -> None:
        """Count a draft that is not used."""
        self.dropped[cause] += 1
        if len(self.samples) < _SAMPLES:
            self.samples.append((cause, text))

    def share(self, cause: Drop) -> float | None:
        """Share of the drafts that were dropped for this cause, 0 to 1; None without drafts."""
        return self.dropped[cause] / self.drafts if self.drafts else None

    def explain(self) -> str:
        """Counts by cause and samples, as one sentence for an error message."""
        counts = ", ".join(f"{number} {cause}" for cause, number in self.dropped.most_common()) or "none dropped"
        quoted = "; ".join(f"{cause}: {text[:200]!r}" for cause, text in self.samples)
        return f"of {self.drafts} drafts: {counts}" + (f" (for example {quoted})" if quoted else "")
