"""A run without a cluster: the planner driven by Jobs that all succeed, to see what it would create."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from dynalign_contract.layout import shard_folder, stage_folder
from dynalign_contract.result import ArtifactRef, Outcome, StageResult
from dynalign_contract.stages import SHARDED_STAGES
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning.observed import JobObservation, JobPhase, Observed
from dynalign_operator.planning.plan import JobBundle
from dynalign_operator.planning.planner import plan

UNKNOWN_DIGEST: Final = "sha256:" + "0" * 64
"""Stands for the digest of an artifact that no stage has written yet."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def rehearse(
    run: AlignmentRun, config_maps: Mapping[str, Mapping[str, str]], now: datetime, settings: BuildSettings
) -> Iterator[JobBundle]:
    """Every bundle that a new run creates when all goes well, in order; nothing suspends it or awaits approval."""
    run = run.with_suspend(suspend=False).without_approval().with_status(AlignmentRunStatus())
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
    folder = stage_folder(step.stage, step.iteration)
    artifacts = (ArtifactRef(path=shard_folder(folder, i, shards), digest=UNKNOWN_DIGEST) for i in range(shards))
    return JobObservation(
        name=bundle.name,
        stage=step.stage,
        iteration=step.iteration,
        attempt=bundle.attempt,
        creation_time=now,
        phase=JobPhase.SUCCEEDED,
        results=tuple(StageResult(outcome=Outcome.SUCCEEDED, artifact=artifact) for artifact in artifacts),
        start_time=now,
        completion_time=now,
    )


def _without_digests(bundle: JobBundle) -> JobBundle:
    """No digest is known yet; those combined from the zeros of several shards would look as if they were."""
    config_map = json.loads(_DIGEST.sub(UNKNOWN_DIGEST, json.dumps(bundle.config_map)))
    return replace(bundle, config_map=config_map)
