"""Approvals: before which stages a run waits for a person, what the person decides, and how the decision is written.

A decision is the JSON text of one annotation. It names the gate, the iteration and the digest of the artifact that the
person has looked at, so that it can never be taken for another one. `by` comes first: an admission policy, whose
language cannot parse JSON, compares the beginning of the text with the name of the user who sends it.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, ValidationError

from dynalign_contract.base import Model
from dynalign_contract.plain_text import plain_text
from dynalign_contract.result import PlainText

APPROVAL_ANNOTATION: Final = "dynalign.io/approval"
"""Annotation of an AlignmentRun with the latest decision."""
LONGEST_REASON: Final = 1024
_LONGEST_TEXT: Final = 8192
"""Characters of the annotation that are parsed."""


class Gate(StrEnum):
    """Where a run waits for a person."""

    BEFORE_TRAIN = "BeforeTrain"
    """Before the training of each iteration, when its candidates have been judged."""
    BEFORE_EXPORT = "BeforeExport"
    """Before the model is exported, when the last iteration has been evaluated."""


class Decision(StrEnum):
    """What a person decides."""

    APPROVED = "Approved"
    """The run goes on."""
    REJECTED = "Rejected"
    """The run ends as failed, with the reason `Rejected`."""


class AwaitedApproval(Model):
    """What waits for a person's approval."""

    gate: Gate
    """Where the run waits."""
    iteration: int = Field(ge=0)
    """Number of the iteration, from 0; before the export that of the last one."""
    artifact: str
    """Digest of what is approved: the judgements of the iteration, or the policy that will be exported."""
    since: datetime
    """When the run began to wait."""


class Approval(Model):
    """A person's decision, as the operator has acted on it."""

    gate: Gate
    """Where the run waited."""
    iteration: int = Field(ge=0)
    """Number of the iteration, from 0."""
    artifact: str
    """Digest of what was approved or rejected; the decision holds for nothing else."""
    decision: Decision
    """What was decided."""
    by: PlainText
    """Name of the user."""
    verified: bool = False
    """Whether an admission policy of the cluster vouches for the name; false: whoever may change the run, or its
    working folder, could have written it."""
    time: datetime
    """When the operator has acted on it."""
    reason: PlainText = ""
    """What the person has written."""
    request: str = ""
    """Digest of the annotation's text: the same text does not count twice."""


def _check_name(name: str) -> str:
    """A name that would have to be changed before it can be printed is refused: another user could have the result."""
    if plain_text(name) != name:
        raise ValueError("has characters that cannot be printed")
    return name


class ApprovalRequest(Model):
    """A decision as it is sent: the JSON of the annotation `dynalign.io/approval`."""

    by: Annotated[str, AfterValidator(_check_name)] = Field(min_length=1, max_length=512)
    gate: Gate
    iteration: int = Field(ge=0)
    artifact: str = Field(min_length=1, max_length=128)
    decision: Decision
    reason: PlainText = Field(default="", max_length=LONGEST_REASON)
    time: str = Field(default="", max_length=64)
    """When it was sent, by the sender's clock; it tells two decisions apart and is not stored."""

    def to_text(self) -> str:
        """The annotation's text: JSON without spaces in which `by` comes first."""
        fields = self.model_dump(mode="json", by_alias=True)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    def fits(self, awaited: AwaitedApproval) -> bool:
        """Whether this is a decision about what is awaited."""
        return (self.gate, self.iteration, self.artifact) == (awaited.gate, awaited.iteration, awaited.artifact)


def build_request(awaited: AwaitedApproval, by: str, decision: Decision, reason: str = "") -> ApprovalRequest:
    """A decision about what is awaited, with the time of this machine. Raises pydantic's ValidationError."""
    return ApprovalRequest(
        by=by,
        gate=awaited.gate,
        iteration=awaited.iteration,
        artifact=awaited.artifact,
        decision=decision,
        reason=reason,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class ApprovalTextError(Exception):
    """The annotation's text is no decision; the message is the rest of a sentence that begins with the annotation."""


def parse_request(text: str) -> ApprovalRequest:
    """The decision in an annotation. Raises ApprovalTextError.

    A name that occurs twice is refused: the admission policy has compared the first `by`.
    """
    if len(text) > _LONGEST_TEXT:
        raise ApprovalTextError(f"is longer than {_LONGEST_TEXT} characters")
    try:
        return ApprovalRequest.model_validate(json.loads(text, object_pairs_hook=_unique))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ApprovalTextError(f"is no decision ({field or 'the text'}: {first['msg']})") from error
    except (ValueError, RecursionError) as error:
        raise ApprovalTextError(f"is no JSON object ({error})") from error


def request_digest(text: str) -> str:
    """What a decision that was acted on remembers of the annotation's text."""
    return f"sha256:{sha256(text.encode(errors='replace')).hexdigest()}"


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found
