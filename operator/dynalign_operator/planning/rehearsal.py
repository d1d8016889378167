"""A run without a cluster: the planner driven by Jobs that all succeed, to see what it would create."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from dynalign_contract.layout import shard_folder, stage_folder
from dynalign_contract.result import ArtifactRef, Outcome, PartResult, StageResult
from dynalign_contract.stages import JOINED_STAGES, SHARDED_STAGES, Stage, iteration_of_part
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning.observed import JobObservation, JobPhase, Observed, Step
from dynalign_operator.planning.plan import JobBundle
from dynalign_operator.planning.planner import plan
from dynalign_operator.planning.sequence import rollout_stages

UNKNOWN_DIGEST: Final = "sha256:" + "0" * 64
"""Stands for the digest of an artifact that no stage has written yet."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def rehearse(
    run: AlignmentRun, config_maps: Mapping[str, Mapping[str, str]], now: datetime, settings: BuildSettings
) -> Iterator[JobBundle]:
    """Every bundle that a new run creates when all goes well, in order; nobody suspends it, and nothing holds it."""
    run = run.with_suspend(suspend=False).without_approval().without_budget().with_status(AlignmentRunStatus())
    jobs: tuple[JobObservation, ...] = ()
    while True:
        planned = plan(Observed(run, jobs, config_maps), now, settings)
        if not planned.create:
            return
        yield from (_without_digests(bundle) for bundle in planned.create)
        run = run.with_status(planned.status)
        jobs = tuple(_succeeded(run, bundle, now) for bundle in planned.create)


def _succeeded(run: AlignmentRun, bundle: JobBundle, now: datetime) -> JobObservation:
    step = bundle.step
    shards = run.spec.generation.shards if step.stage in SHARDED_STAGES else 1
    return JobObservation(
        name=bundle.name,
        stage=step.stage,
        iteration=step.iteration,
        attempt=bundle.attempt,
        creation_time=now,
        phase=JobPhase.SUCCEEDED,
        results=tuple(_result(run, step, i, shards) for i in range(shards)),
        start_time=now,
        completion_time=now,
    )


def _result(run: AlignmentRun, step: Step, index: int, shards: int) -> StageResult:
    def artifact_of(stage: Stage) -> ArtifactRef:
        folder = stage_folder(stage, None if step.iteration is None else iteration_of_part(stage, step.iteration))
        path = shard_folder(folder, index, shards if stage in SHARDED_STAGES - JOINED_STAGES else 1)
        return ArtifactRef(path=path, digest=UNKNOWN_DIGEST)

    stages = rollout_stages(run.spec, run.status, step.iteration or 0) if step.stage is Stage.ROLLOUT else ()
    parts = {stage: PartResult(artifact=artifact_of(stage)) for stage in stages}
    return StageResult(outcome=Outcome.SUCCEEDED, artifact=artifact_of(step.stage), parts=parts)


def _without_digests(bundle: JobBundle) -> JobBundle:
    """No digest is known yet; those combined from the zeros of several shards would look as if they were."""
    config_map = json.loads(_DIGEST.sub(UNKNOWN_DIGEST, json.dumps(bundle.config_map)))
    return replace(bundle, config_map=config_map)
