"""Drafts of prompts, and the outcome of each."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from dynalign_contract.prompt_yield import AgentYield
from dynalign_contract.records import DraftRow
from dynalign_trainer.prompts.seeds import Seed
from dynalign_trainer.prompts.wording import Wording, written_wording

_SAMPLES: Final = 3
KEPT: Final = "kept"


class Actor(StrEnum):
    """An agent or step that handles drafts."""

    SUPPLIED = "supplied"
    """The user: no agent wrote it."""
    AUTHOR = "author"
    CURATOR = "curator"
    CRITIC = "critic"
    REVISER = "reviser"


class Drop(StrEnum):
    """Why a draft is not used."""

    UNFINISHED = "unfinished"
    """No whole sentence was left after cleaning."""
    SHORT = "short"
    LONG = "long"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near-duplicate"
    CLUSTER = "cluster"
    """There are enough prompts that mean the same."""
    CONTAMINATED = "contaminated"
    """It shares a run of words with what the evaluation asks."""
    LANGUAGE = "language"
    LOW_SCORE = "low-score"
    BUDGET = "budget"
    """An agent's budget was used up before the draft's turn."""
    NOT_BETTER = "not-better"
    """The critic liked the revised text no more than the draft, which goes on as it was."""
    SURPLUS = "surplus"
    """Others were better, or made the set more even."""


@dataclass(frozen=True)
class Draft:
    """A prompt that an agent has written."""

    text: str
    seed: Seed
    score: float = math.nan
    """The critic's expected digit, mean over its criteria, 0 to 9; NaN where no critic has looked."""
    draft_id: str = ""
    opening: str = ""
    """Beginning of the text that the seed dictated."""
    before: "Draft | None" = None
    """What the reviser revised; None where nothing was."""

    @property
    def wording(self) -> Wording:
        """The text, and the text without what the seed dictated."""
        return written_wording(self.text, self.text.removeprefix(self.opening))


@dataclass
class Work:
    """Counts of drafts that one actor was given and passed on."""

    given: int = 0
    kept: int = 0
    dropped: Counter[Drop] = field(default_factory=Counter)
    requests: int = 0
    tokens: int = 0
    model: str = ""


@dataclass(frozen=True)
class DraftOutcome:
    """The last actor of a draft, and its decision."""

    draft: Draft
    actor: Actor
    outcome: str
    """`kept`, or the cause of its drop."""


@dataclass
class Tally:
    """Counts and outcomes of the drafts of one set of prompts."""

    work: dict[Actor, Work] = field(default_factory=dict)
    outcomes: dict[str, DraftOutcome] = field(default_factory=dict)
    """Draft id -> its outcome."""
    samples: list[tuple[Drop, str]] = field(default_factory=list)
    """The first few dropped texts, for people."""
    warnings: list[str] = field(default_factory=list)
    """Budgets that are used up, as clauses."""

    def of(self, actor: Actor) -> Work:
        """The counts of one actor."""
        return self.work.setdefault(actor, Work())

    def drop(self, actor: Actor, cause: Drop, draft: Draft) -> None:
        """Count a draft that is not used."""
        self.of(actor).dropped[cause] += 1
        if draft.draft_id:
            self.outcomes[draft.draft_id] = DraftOutcome(draft, actor, cause.value)
        if cause is not Drop.SURPLUS and len(self.samples) < _SAMPLES:
            self.samples.append((cause, draft.text))

    def lose(self, actor: Actor, cause: Drop) -> None:
        """Count a text of which nothing came while the draft that it was made from goes on."""
        self.of(actor).dropped[cause] += 1

    def keep(self, actor: Actor, drafts: Sequence[Draft]) -> list[Draft]:
        """Count drafts that a actor passes on."""
        self.of(actor).kept += len(drafts)
        for draft in drafts:
            if draft.draft_id:
                self.outcomes[draft.draft_id] = DraftOutcome(draft, actor, KEPT)
        return list(drafts)

    @property
    def drafts(self) -> int:
        """Texts that were there to choose from: written or supplied."""
        return sum(self.work[actor].given for actor in (Actor.SUPPLIED, Actor.AUTHOR) if actor in self.work)

    @property
    def tokens(self) -> int:
        """Tokens that the agents have read and written."""
        return sum(work.tokens for work in self.work.values())

    @property
    def requests(self) -> int:
        """Requests to the agents' models."""
        return sum(work.requests for work in self.work.values())

    def dropped(self, cause: Drop) -> int:
        """Texts dropped for this cause, by whomever."""
        return sum(work.dropped[cause] for work in self.work.values())

    def share(self, cause: Drop) -> float | None:
        """Share of the texts that were dropped for this cause, 0 to 1; None without any."""
        return self.dropped(cause) / self.drafts if self.drafts else None

    def explain(self) -> str:
        """Counts by cause and samples, as one sentence for an error message."""
        causes = sorted(((self.dropped(cause), cause) for cause in Drop), key=lambda pair: -pair[0])
        counts = ", ".join(f"{number} {cause}" for number, cause in causes if number) or "none dropped"
        quoted = "; ".join(f"{cause}: {text[:200]!r}" for cause, text in self.samples)
        spent = "".join(f"; {warning}" for warning in self.warnings)
        return f"of {self.drafts} drafts: {counts}{spent}" + (f" (for example {quoted})" if quoted else "")

    def yields(self) -> tuple[AgentYield, ...]:
        """The accounts, in the order of the hands."""
        return tuple(
            AgentYield(
                agent=actor,
                model=work.model,
                given=work.given,
                kept=work.kept,
                dropped={cause.value: number for cause, number in sorted(work.dropped.items())},
                requests=work.requests,
                tokens=work.tokens,
            )
            for actor in Actor
            if (work := self.work.get(actor)) is not None
        )

    def draft_rows(self, prompt_ids: dict[str, str]) -> list[DraftRow]:
        """DRAFT rows, in the order of their writing; `prompt_ids` is draft id -> id of the prompt that it became."""
        return [_draft_row(fate, prompt_ids.get(key, "")) for key, fate in sorted(self.outcomes.items())]


def _draft_row(fate: DraftOutcome, prompt_id: str) -> DraftRow:
    draft = fate.draft
    first = draft.before or draft
    revised = draft if draft.before is not None else None
    return {
        "draft_id": draft.draft_id,
        "facets": draft.seed,
        "text": first.text,
        "score": first.score,
        "revised": revised.text if revised else "",
        "revised_score": revised.score if revised else math.nan,
        "agent": fate.actor.value,
        "outcome": fate.outcome,
        "prompt_id": prompt_id,
    }
