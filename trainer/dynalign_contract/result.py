"""StageResult: a stage's last word, at most 4096 bytes because it travels as a container's termination message."""

import hashlib
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from dynalign_contract.base import Model
from dynalign_contract.names import SUBFOLDER, whole
from dynalign_contract.plain_text import plain_text
from dynalign_contract.training_choice import TrainingChoice

MAX_RESULT_BYTES: Final = 4096
"""The kubelet keeps this many bytes of a termination message."""

MAX_WARNINGS: Final = 5
"""Warnings of one attempt that are reported; the log has all of them."""
MAX_WARNING_LENGTH: Final = 400
"""Characters of a warning."""

_MOST: Final = 2**53 - 1
"""The largest whole number that JSON carries exactly."""


PlainText = Annotated[str, AfterValidator(plain_text)]
"""Becomes part of a status and of Events: text of models and servers loses escape sequences and control characters."""


class Outcome(StrEnum):
    """How a stage ended."""

    SUCCEEDED = "Succeeded"
    SKIPPED = "Skipped"
    """The artifact was there already, with this very configuration."""
    FAILED = "Failed"


class ArtifactRef(Model):
    """A finished artifact: where it is and what it must contain."""

    path: str = Field(pattern=whole(SUBFOLDER), max_length=512)
    """Folder, relative to the run's folder, which it does not leave."""
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """Digest of the artifact's file list (`Manifest.digest`), or of its shards' digests."""
    bytes: int = Field(default=0, ge=0, le=_MOST)
    """Size of all files."""
    rows: int = Field(default=0, ge=0, le=_MOST)
    """Rows of all Parquet files."""
    shards: int = Field(default=1, ge=1, le=65_536)
    """Number of shard folders below `path`; 1 means the files lie in `path` itself."""


def combine_digests(digests: Sequence[str]) -> str:
    """Digest of a sharded artifact, from the digests of its shards in the order of their indexes."""
    if len(digests) == 1:
        return digests[0]
    return "sha256:" + hashlib.sha256(json.dumps(list(digests)).encode()).hexdigest()


def combine_artifacts(path: str, shards: Sequence[ArtifactRef]) -> ArtifactRef:
    """The artifact at `path` that consists of these shards, in the order of their indexes."""
    return ArtifactRef(
        path=path,
        digest=combine_digests([s.digest for s in shards]),
        bytes=sum(s.bytes for s in shards),
        rows=sum(s.rows for s in shards),
        shards=len(shards),
    )


class Metric(Model):
    """One named number."""

    name: PlainText = Field(max_length=64)
    """For example `reward`."""
    value: float | None = Field(default=None, allow_inf_nan=False)
    """Absent where the number is not defined (a mean of nothing)."""


class ResultError(Model):
    """Why a stage failed."""

    reason: PlainText
    message: PlainText


class StageResult(Model):
    """Outcome, error, artifact, a few metrics and a few warnings of one attempt of a stage."""

    outcome: Outcome
    exit_code: int = 0
    error: ResultError | None = None
    artifact: ArtifactRef | None = None
    metrics: tuple[Metric, ...] = ()
    warnings: tuple[PlainText, ...] = ()
    """What the user should know although the stage succeeded; the run gets an event with each."""
    training: TrainingChoice | None = Field(default=None, exclude_if=lambda choice: choice is None)
    """How the policy is trained, in the results of fetch and train."""
    seconds: float = 0.0
    """Wall time of the attempt."""

    def encode(self) -> bytes:
        """Serialise into at most `MAX_RESULT_BYTES`.

        Warnings go first, then metrics, the choice of training, and the error message's end.
        """
        result = self
        while len(data := result.to_json().encode()) > MAX_RESULT_BYTES:
            if result.warnings:
                result = result.model_copy(update={"warnings": result.warnings[:-1]})
            elif result.metrics:
                result = result.model_copy(update={"metrics": result.metrics[:-1]})
            elif result.training is not None:
                result = result.model_copy(update={"training": None})
            elif result.error is not None and result.error.message:
                keep = max(0, len(result.error.message) - (len(data) - MAX_RESULT_BYTES) - 8)
                error = result.error.model_copy(update={"message": result.error.message[:keep]})
                result = result.model_copy(update={"error": error})
            else:
                raise ValueError(f"a StageResult of {len(data)} bytes cannot be shortened to {MAX_RESULT_BYTES}")
        return data

    @classmethod
    def decode(cls, data: bytes | str) -> "StageResult":
        """Parse a termination message; raises pydantic's ValidationError when it is not one."""
        return cls.model_validate_json(data)
