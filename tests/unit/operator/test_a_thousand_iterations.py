"""What one run may take of etcd: a thousand iterations, the most that a run may have.

The first 980 are put into the status as the planner leaves old ones; the rest are planned and rendered.
"""

import json
import random
from dataclasses import replace
from typing import Final

import pytest

from dynalign_contract.estimate import Estimate
from dynalign_contract.result import ArtifactRef, Metric
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import AlignmentRunStatus, IterationStatus, Phase, StagePhase, StageStatus
from dynalign_operator.planning.observed import JobObservation, JobPhase
from dynalign_operator.planning.stage_status import WHOLE_ITERATIONS
from support.builders import RunBuilder, a_run
from support.simulation import Simulation, succeed

pytestmark = pytest.mark.slow

MOST: Final = 1000
"""Iterations."""
GIVEN: Final = 980
MIB: Final = 2**20
_METRICS: Final = 24
"""Numbers of a stage, about as many as a termination message holds."""


def an_artifact(index: int, name: str) -> ArtifactRef:
    digest = f"sha256:{random.Random(f'{index}{name}').getrandbits(256):064x}"
    return ArtifactRef(path=f"iterations/{index:03d}/{name}", digest=digest, bytes=123_456_789, rows=2048)


def an_old_iteration(index: int) -> IterationStatus:
    draw = random.Random(index).random
    return IterationStatus(
        index=index,
        **dict.fromkeys(("reward", "preference"), draw()),
        **dict.fromkeys(
            ("win_rate", "capability", "capability_delta"), Estimate(value=draw(), low=draw(), high=draw())
        ),
        prompts=an_artifact(index, "prompts"),
        policy=an_artifact(index, "policy"),
        evaluation=an_artifact(index, "evaluation"),
    )


def well(job: JobObservation) -> JobObservation:
    """Success with many numbers and a real artifact."""
    ended = succeed(job)
    metrics = tuple(Metric(name=f"a_metric_of_usual_length_{n}", value=n / 7) for n in range(_METRICS))
    artifact = an_artifact(job.iteration or 0, str(job.stage))
    results = tuple(
        None if result is None else result.model_copy(update={"metrics": metrics, "artifact": artifact})
        for result in ended.results
    )
    return replace(ended, results=results)


def at_the_end(run: RunBuilder) -> Simulation:
    fetched = StageStatus(stage=Stage.FETCH, phase=StagePhase.SUCCEEDED, artifact=an_artifact(0, "model"))
    status = AlignmentRunStatus(
        phase=Phase.RUNNING, fetch=fetched, iterations=tuple(map(an_old_iteration, range(GIVEN)))
    )
    run = run.with_iterations(MOST).with_spec(evaluation={"ratings": "BradleyTerry"}).with_policy(deadline="9000h")
    return Simulation(run.stored().with_status(status).build()).finish(well, steps=1000)


def size(thing: object) -> int:
    return len(json.dumps(thing))


def test_a_run_of_a_thousand_iterations_takes_20_mib_of_etcd_at_most() -> None:
    simulation = at_the_end(a_run())
    assert len(simulation.run.status.iterations) == MOST
    bundles = [bundle for bundle in simulation.created if bundle.name in simulation.jobs]
    begun = {bundle.step.iteration for bundle in bundles}
    assert begun == {None, *range(MOST - WHOLE_ITERATIONS, MOST)}, "Jobs of older iterations are gone"
    # a ConfigMap goes with its Job, a pod is about as large as its Job, and the API server adds managed fields
    objects = sum(size(bundle.config_map) + 2 * (size(bundle.job) + 8_000) for bundle in bundles)
    assert len(bundles) == 5 * WHOLE_ITERATIONS + 1
    assert objects + len(simulation.run.to_json()) < 20 * MIB
    assert max(size(bundle.config_map) for bundle in bundles) < 0.6 * MIB


def test_its_status_leaves_a_third_of_an_object_s_room_for_the_specification() -> None:
    simulation = at_the_end(a_run())
    assert len(simulation.run.status.to_json()) < 1.5 * MIB * 2 / 3


def test_jobs_that_live_are_never_taken_for_old_ones() -> None:
    simulation = at_the_end(a_run())
    old = replace(next(iter(simulation.jobs.values())), name="r-i000-train-a1", stage=Stage.TRAIN, iteration=0)
    simulation.jobs = {old.name: old}
    assert simulation.plan().delete == (old.name,)
    simulation.jobs = {old.name: replace(old, phase=JobPhase.ACTIVE, deleting=True)}
    assert simulation.plan().delete == ()
