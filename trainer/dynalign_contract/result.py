"""StageResult: a stage's last word, at most 4096 bytes because it travels as a container's termination message."""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, model_validator

from dynalign_contract.base import Model
from dynalign_contract.names import SUBFOLDER, whole
from dynalign_contract.plain_text import plain_text
from dynalign_contract.stages import Stage
from dynalign_contract.training_choice import TrainingChoice

MAX_RESULT_BYTES: Final = 4096
"""The kubelet keeps this many bytes of a termination message."""

MAX_WARNINGS: Final = 5
"""Warnings of one attempt that are reported; the log has all of them."""
MAX_WARNING_LENGTH: Final = 400
"""Characters of a warning."""
SHORT_WARNING_LENGTH: Final = 200
"""Characters of a warning in a result that would be too long."""

WARNINGS: Final = "warnings"
"""What `StageResult.omitted` calls warnings that are left out."""
PUBLISHED: Final = "published"
"""What it calls places of publication that are left out."""
_OTHERS: Final = "others"
"""What it calls metrics for whose names there is no room either."""
_MAX_OMITTED_BYTES: Final = 512
MEMBER_SEPARATOR: Final = "/"
"""Between the name of a family of metrics and its member: names that users choose never meet a name of dynalign's
own."""

_MOST_UNPACKED_BYTES: Final = 1 << 18
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


class PublishedPlace(Model):
    """A place to which the export was copied, and where every byte of it was read back."""

    uri: PlainText = Field(max_length=512)
    """Address of the copy, in the form that `spec.model.uri` takes."""


class ResultError(Model):
    """Why a stage failed."""

    reason: PlainText
    message: PlainText


class PartResult(Model):
    """What a rollout reports of one of its stages, in few bytes."""

    artifact: ArtifactRef
    metrics: dict[PlainText, float | None] = Field(default_factory=dict)
    """Name -> value, as in `StageResult.metrics`."""
    seconds: float = 0.0
    """Wall time of the stage."""
    is_skipped: bool = Field(default=False, exclude_if=lambda skipped: not skipped)
    """The artifact was there already."""

    def whole(self) -> "StageResult":
        """The result that a Job of the stage alone would have had."""
        return StageResult(
            outcome=Outcome.SKIPPED if self.is_skipped else Outcome.SUCCEEDED,
            artifact=self.artifact,
            metrics=tuple(Metric(name=name, value=value) for name, value in self.metrics.items()),
            seconds=self.seconds,
        )


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
    published: tuple[PublishedPlace, ...] = Field(default=(), exclude_if=lambda places: not places)
    """Where the export stage has published the model."""
    parts: dict[Stage, PartResult] = Field(default_factory=dict, exclude_if=lambda parts: not parts)
    """Results of a rollout's stages, in order."""
    packed: str = Field(default="", exclude_if=lambda packed: not packed)
    """`parts` of a message that would be too long with them: base64 of zlib of their JSON. Empty in every result that
    has been read."""
    seconds: float = 0.0
    """Wall time of the attempt."""
    omitted: tuple[PlainText, ...] = Field(default=(), exclude_if=lambda names: not names)
    """What this result had no room for: families of metrics, metrics, `warnings`. The artifact's manifest has all
    metrics, the log all warnings."""

    def encode(self) -> bytes:
        """Serialise into at most `MAX_RESULT_BYTES`.

        Parts of a result that is too long with them are compressed. One that still is too long is shortened step by
        step until it fits: numbers to six significant digits and warnings to `SHORT_WARNING_LENGTH`; then it loses
        families of metrics, the last one first and each as a whole,
        warnings, single metrics from the end, those of a rollout's stages likewise, the choice of training, places of
        publication, and the error message's end. `omitted` names the metrics that are left out, and says if warnings or
        places are.
        """
        for result in _shorter(self):
            for form in (result, _pack(result)) if result.parts else (result,):
                if len(data := form.to_json().encode()) <= MAX_RESULT_BYTES:
                    return data
        raise ValueError(f"a StageResult of {len(data)} bytes cannot be shortened to {MAX_RESULT_BYTES}")

    @classmethod
    def decode(cls, data: bytes | str) -> "StageResult":
        """Parse a termination message; raises pydantic's ValidationError when it is not one."""
        return cls.model_validate_json(data)

    @model_validator(mode="before")
    @classmethod
    def _unpack(cls, data: Any) -> Any:
        packed = data.get("packed") if isinstance(data, dict) else None
        return {**data, "packed": "", "parts": _unpacked(packed)} if isinstance(packed, str) and packed else data


def _pack(result: StageResult) -> StageResult:
    """The result with its parts compressed."""
    parts = {stage: part.model_dump(mode="json", by_alias=True) for stage, part in result.parts.items()}
    packed = base64.b64encode(zlib.compress(json.dumps(parts, separators=(",", ":")).encode(), level=9)).decode()
    return result.model_copy(update={"parts": {}, "packed": packed})


def _unpacked(packed: str) -> Any:
    """What `_pack` has compressed. Raises ValueError for anything else."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(base64.b64decode(packed, validate=True), _MOST_UNPACKED_BYTES)
    except zlib.error as error:
        raise ValueError(f"packed is not compressed by zlib: {error}") from error
    if stream.unconsumed_tail:
        raise ValueError(f"packed has more than {_MOST_UNPACKED_BYTES} bytes")
    return json.loads(data)


def shorten(text: str, longest: int) -> str:
    """The text, or its beginning and three dots, in at most `longest` characters."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _shorter(result: StageResult) -> Iterator[StageResult]:
    """The result, then shorter and shorter ones."""
    yield result
    rounded = (metric.model_copy(update={"value": _rounded(metric.value)}) for metric in result.metrics)
    warnings = (shorten(text, SHORT_WARNING_LENGTH) for text in result.warnings)
    parts = {stage: _with_metrics(part, _rounded_all(part.metrics)) for stage, part in result.parts.items()}
    result = result.model_copy(update={"metrics": tuple(rounded), "warnings": tuple(warnings), "parts": parts})
    yield result
    shorter = _shorter_parts(result, families_only=True)
    yield from shorter
    result = [result, *shorter][-1]
    families = dict.fromkeys(family for metric in result.metrics if (family := _family(metric)))
    for family in reversed(families):
        left = tuple(metric for metric in result.metrics if _family(metric) != family)
        result = _without(result, family, metrics=left)
        yield result
    while result.warnings:
        result = _without(result, WARNINGS, warnings=result.warnings[:-1])
        yield result
    while result.metrics:
        result = _without(result, result.metrics[-1].name, metrics=result.metrics[:-1])
        yield result
    shorter = _shorter_parts(result)
    yield from shorter
    result = [result, *shorter][-1]
    result = result.model_copy(update={"training": None})
    yield result
    while result.published:
        result = _without(result, PUBLISHED, published=result.published[:-1])
        yield result
    while result.error is not None and result.error.message:
        excess = len(result.to_json().encode()) - MAX_RESULT_BYTES
        kept = result.error.message[: max(0, len(result.error.message) - excess - 8)]
        result = result.model_copy(update={"error": result.error.model_copy(update={"message": kept})})
        yield result


def _shorter_parts(result: StageResult, *, families_only: bool = False) -> list[StageResult]:
    """Results with ever fewer metrics of a rollout's stages: from the last stage and its end, families as a whole."""
    found: list[StageResult] = []
    for stage in reversed(result.parts):
        names = (n for n in reversed(result.parts[stage].metrics) if MEMBER_SEPARATOR in n or not families_only)
        for dropped in dict.fromkeys(name.partition(MEMBER_SEPARATOR)[0] for name in names):
            part = result.parts[stage]
            left = {n: value for n, value in part.metrics.items() if n.partition(MEMBER_SEPARATOR)[0] != dropped}
            parts = {**result.parts, stage: _with_metrics(part, left)}
            result = _without(result, f"{stage}: {dropped}", parts=parts)
            found.append(result)
    return found


def _with_metrics(part: PartResult, metrics: dict[str, float | None]) -> PartResult:
    return part.model_copy(update={"metrics": metrics})


def _rounded_all(metrics: dict[str, float | None]) -> dict[str, float | None]:
    return {name: _rounded(value) for name, value in metrics.items()}


def _family(metric: Metric) -> str:
    """The family that a metric is a member of; empty for a single one."""
    family, separator, _ = metric.name.partition(MEMBER_SEPARATOR)
    return family if separator else ""


def _without(result: StageResult, name: str, **left: object) -> StageResult:
    """The result with less, named among what is omitted as long as there is room for names."""
    omitted = tuple(dict.fromkeys((*result.omitted, name)))
    if len(json.dumps(omitted)) > _MAX_OMITTED_BYTES:
        omitted = tuple(dict.fromkeys((*result.omitted, _OTHERS)))
    return result.model_copy(update={**left, "omitted": omitted})


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
