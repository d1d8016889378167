"""What `dynalign verify --rescore` asks of the judge stage's code, and what that answers."""

from typing import Final

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.config import StageConfig
from dynalign_contract.result import ArtifactRef, PlainText

EXACT_TOLERANCE: Final = 0.25
"""Points, of the judge's 0 to 9, by which an expected digit may differ: numbers of other batches and other hardware are
rounded in another way."""
SAMPLED_TOLERANCE: Final = 1.0
"""Points by which a score may differ that rests on sampled text, or that a server gave."""


class JudgedArtifact(Model):
    """The judgements of one iteration."""

    config: StageConfig
    """Configuration of the judge stage that wrote them."""
    artifact: ArtifactRef
    candidates: int = Field(ge=0)
    """Candidates to be scored again."""


class RescoreOrder(Model):
    """What `python -m dynalign_trainer.judge.rescore` reads from standard input."""

    root: str
    """Folder of the run."""
    judged: JudgedArtifact
    tolerance: float | None = None
    """Points of 0 to 9. Default: `EXACT_TOLERANCE`, or `SAMPLED_TOLERANCE` where text is sampled or a server judges."""


class ScoreDifference(Model):
    """A recorded number that the judge does not give again."""

    iteration: int
    prompt_id: PlainText
    candidate: int
    judge: PlainText
    what: PlainText
    """`reward`, `raw_reward`, or the name of an aspect or of a judge."""
    recorded: float | None
    """None: none was recorded."""
    rescored: float | None
    """None: the judge gave none."""
    tolerance: float
    """The difference that is let pass, on the number's own scale."""


class RescoreReport(Model):
    """What the command writes to standard output, in one line."""

    rescored: int = 0
    """Candidates that were scored again by at least one judge."""
    largest: float | None = None
    """Largest difference of an aspect's score or of a judge's reward, in points of 0 to 9."""
    differences: tuple[ScoreDifference, ...] = ()
    refused: tuple[PlainText, ...] = ()
    """What could not be scored again and why, as sentences."""
