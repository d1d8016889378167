"""The runs of bench-scale: finished ones with ten iterations, active ones whose stages take about a second."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from benchmarks.fake_nodes import fake_result
from dynalign_contract.estimate import Estimate
from dynalign_contract.result import Metric
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.api.status import (
    AlignmentRunStatus,
    BestIteration,
    Condition,
    ConditionType,
    IterationStatus,
    Phase,
    StagePhase,
    StageStatus,
)
from dynalign_operator.clusters.kubernetes.api import KubeApi
from dynalign_operator.clusters.kubernetes.paths import RUNS, collection_path, object_path

NAMESPACE: Final = "scale"
CLAIM: Final = "shared"
_AT_ONCE: Final = 8
"""Requests at the same time while runs are made."""
_METRICS_OF_A_STAGE: Final = 20
_RATE: Final = Estimate(value=0.512345678, low=0.412345678, high=0.612345678)
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)


def run_object(name: str, iterations: int) -> dict[str, Any]:
    """A run whose stages ask for no GPU and no model, on a claim that all runs share."""
    stages = ("prompts", "generate", "judge", "train", "evaluate")
    return {
        "apiVersion": "dynalign.io/v1alpha1",
        "kind": "AlignmentRun",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"uri": "bundled://smollm2-135m-instruct"},
            "iterations": iterations,
            "prompts": {"perIteration": 1, "heldOut": 1},
            "generation": {"candidates": 2},
            "training": {"promptsPerStep": 1},
            "storage": {"existingClaim": CLAIM},
            "rollout": "Separate",
            "stages": {stage: {"resources": {"limits": {"nvidia.com/gpu": "0"}}} for stage in stages},
        },
    }


def storage_objects() -> list[dict[str, Any]]:
    """A claim that is bound without a controller that binds."""
    access = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "shared", "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}},
        "spec": {
            **access,
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": NAMESPACE, "name": CLAIM},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": CLAIM,
            "namespace": NAMESPACE,
            "annotations": {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"},
        },
        "spec": {**access, "volumeName": "shared", "resources": {"requests": {"storage": "1Gi"}}},
    }
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, volume, claim]


def finished_status(iterations: int) -> AlignmentRunStatus:
    """The status of a run that has ended well, with all numbers of all stages."""
    entries = tuple(_iteration(index) for index in range(iterations))
    message = "The run is complete and its model is exported."
    conditions = tuple(
        Condition(
            type=kind,
            status="True" if kind in (ConditionType.READY, ConditionType.COMPLETED) else "False",
            reason="Succeeded",
            message=message,
            last_transition_time=_BEGIN,
            observed_generation=1,
        )
        for kind in ConditionType
    )
    return AlignmentRunStatus(
        observed_generation=1,
        phase=Phase.SUCCEEDED,
        iteration=iterations - 1,
        progress=f"{iterations}/{iterations}",
        start_time=_BEGIN,
        completion_time=_BEGIN + timedelta(hours=iterations),
        conditions=conditions,
        fetch=_stage(Stage.FETCH, 0),
        iterations=entries,
        export=_stage(Stage.EXPORT, iterations),
        best=BestIteration(iteration=0, win_rate=_RATE, reason="the highest win rate", model_uri="export/model"),
        reward=0.512,
        win_rate=_RATE,
    )


def _iteration(index: int) -> IterationStatus:
    artifact = fake_result().artifact
    entry = IterationStatus(
        index=index,
        stages=tuple(_stage(stage, index) for stage in ITERATION_STAGES),
        prompts=artifact,
        policy=artifact,
        evaluation=artifact,
    )
    return entry.model_copy(update={"reward": 0.512345678, "win_rate": _RATE, "capability": Estimate(value=0.4)})


def _stage(stage: Stage, index: int) -> StageStatus:
    result = fake_result()
    more = tuple(Metric(name=f"another_number_{n}", value=n / 7) for n in range(_METRICS_OF_A_STAGE))
    at = _BEGIN + timedelta(hours=index)
    return StageStatus(
        stage=stage,
        phase=StagePhase.SUCCEEDED,
        job=f"some-run-i{index:03d}-{stage}-a1",
        start_time=at,
        completion_time=at + timedelta(minutes=7),
        artifact=result.artifact,
        metrics=(result.metrics + more)[:_METRICS_OF_A_STAGE],
    )


async def create_finished(api: KubeApi, count: int, iterations: int) -> None:
    """Create finished runs, several at a time."""
    status = finished_status(iterations).model_dump(mode="json", by_alias=True)
    await _at_once(_create_finished(api, f"done-{index:05d}", iterations, status) for index in range(count))


async def create_active(api: KubeApi, names: Sequence[str], iterations: int) -> None:
    """Create runs that have everything before them."""
    path = collection_path(RUNS, NAMESPACE)
    await _at_once(api.create(path, run_object(name, iterations)) for name in names)


async def _create_finished(api: KubeApi, name: str, iterations: int, status: dict[str, Any]) -> None:
    stored = await api.create(collection_path(RUNS, NAMESPACE), run_object(name, iterations))
    if stored is not None:
        version = stored["metadata"]["resourceVersion"]
        await api.replace_status(object_path(RUNS, NAMESPACE, name, "status"), version, status)


async def _at_once(work: Iterator[Any]) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def limited(one: Any) -> None:
        async with gate:
            await one

    await asyncio.gather(*(limited(one) for one in work))
