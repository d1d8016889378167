"""Reading of what the stages of a run have left in its folder: their manifests, and the status beside them."""

from collections.abc import Iterator
from pathlib import Path

from dynalign_contract.combining import combine_metrics
from dynalign_contract.errors import StageError
from dynalign_contract.layout import RunLayout
from dynalign_contract.manifest import Manifest, read_manifest
from dynalign_contract.result import ArtifactRef, Outcome, StageResult, combine_digests
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_report.facts import RunFacts, StageFacts

_SUCCEEDED = "Succeeded"


def read_stages(root: Path, facts: RunFacts) -> tuple[tuple[StageFacts, ...], list[str]]:
    """Every stage that has begun, in order, and a sentence for each manifest that cannot be read."""
    problems: list[str] = []
    return tuple(_stages(RunLayout(root), facts, find_iterations(root), problems)), problems


def find_iterations(root: Path) -> list[int]:
    """Numbers of the iterations that have a folder, in order."""
    return sorted(int(path.name) for path in (root / "iterations").glob("[0-9]*") if path.name.isdecimal())


def artifact_parts(folder: Path) -> tuple[Path, ...]:
    """Folders of a finished artifact, one a shard that is finished. Raises CorruptArtifactError."""
    if read_manifest(folder) is not None:
        return (folder,)
    return tuple(path for path in sorted(folder.glob("shard-*")) if read_manifest(path) is not None)


def _stages(layout: RunLayout, facts: RunFacts, iterations: list[int], problems: list[str]) -> Iterator[StageFacts]:
    known = {(entry.stage, entry.iteration): entry for entry in facts.stages}
    places: list[tuple[Stage, int | None]] = [
        (Stage.FETCH, None),
        *((stage, iteration) for iteration in iterations for stage in ITERATION_STAGES),
        (Stage.EXPORT, None),
    ]
    for place in dict.fromkeys([*places[:-1], *(key for key in known if key != places[-1]), places[-1]]):
        given = known.get(place)
        try:
            left = _from_manifests(layout, *place)
        except StageError as error:
            problems.append(str(error))
            left = None
        if given is None:
            if left is not None:
                yield left
        elif left is None or given.phase != _SUCCEEDED:
            yield given
        else:
            yield _merged(given, left)


def _from_manifests(layout: RunLayout, stage: Stage, iteration: int | None) -> StageFacts | None:
    if stage is Stage.ROLLOUT:  # it leaves the artifacts of its stages, and none of its own
        return None
    folders = artifact_parts(layout.stage(stage, iteration))
    manifests = [manifest for folder in folders if (manifest := read_manifest(folder)) is not None]
    if not manifests:
        return None
    return StageFacts(
        stage=stage,
        iteration=iteration,
        phase=_SUCCEEDED,
        metrics=combine_metrics(stage, [_result(manifest) for manifest in manifests]),
        seconds=max(manifest.seconds for manifest in manifests),
        digest=combine_digests([manifest.digest for manifest in manifests]),
        bytes=sum(file.bytes for manifest in manifests for file in manifest.files),
        rows=sum(file.rows for manifest in manifests for file in manifest.files),
        producers=manifests[0].producers,
    )


def _result(manifest: Manifest) -> StageResult:
    """The result that the stage reported with this manifest, as far as shards are joined by it."""
    rows = sum(file.rows for file in manifest.files)
    artifact = ArtifactRef(path="shard", digest=manifest.digest, rows=rows)
    return StageResult(outcome=Outcome.SUCCEEDED, artifact=artifact, metrics=manifest.metrics)


def _merged(given: StageFacts, left: StageFacts) -> StageFacts:
    """The status's numbers, and what only the manifests know."""
    return StageFacts(
        stage=given.stage,
        iteration=given.iteration,
        phase=given.phase,
        metrics=given.metrics or left.metrics,
        seconds=given.seconds if given.seconds is not None else left.seconds,
        attempt=given.attempt,
        message=given.message,
        digest=given.digest or left.digest,
        bytes=given.bytes or left.bytes,
        rows=given.rows or left.rows,
        producers=left.producers,
    )
