"""Where and with what a stage's pods run: the installation's defaults, and what the run says otherwise."""

from collections.abc import Mapping, Sequence
from typing import Final

from dynalign_contract.stages import Stage
from dynalign_operator.api.quantities import parse_quantity
from dynalign_operator.api.v1alpha1 import AlignmentRun, Resources, StageOverrides
from dynalign_operator.manifests.build_settings import GPU, PodDefaults
from dynalign_operator.manifests.objects import KubernetesObject

_LEAST_REQUESTS: Final = {"cpu": "100m", "memory": "512Mi"}
"""Requests of a stage without GPUs: enough not to be evicted first, and little enough for a small node."""
_CORES_PER_GPU: Final = 2
_GIB_PER_GPU: Final = 8
"""Memory of the node that feeds a GPU. Large models need more (`trainer.podDefaults`, `spec.stages`)."""


def stage_overrides(run: AlignmentRun, stage: Stage, defaults: PodDefaults) -> StageOverrides:
    """The run's overrides of a stage on top of the installation's: maps and variables are merged by name."""
    own: StageOverrides = getattr(run.spec.stages, stage)
    layers = (*defaults.of(stage), own)
    return StageOverrides.model_construct(  # both lists together may be longer than one may be
        resources=Resources.model_construct(
            requests=_merged([layer.resources.requests for layer in layers]),
            limits=_merged([layer.resources.limits for layer in layers]),
        ),
        node_selector=_merged([layer.node_selector for layer in layers]),
        tolerations=tuple(dict.fromkeys(toleration for layer in layers for toleration in layer.tolerations)),
        priority_class_name=own.priority_class_name
        or run.spec.scheduling.priority_class_name
        or _last([layer.priority_class_name for layer in layers]),
        runtime_class_name=_last([layer.runtime_class_name for layer in layers]),
        pod_labels=_merged([layer.pod_labels for layer in layers]),
        pod_annotations=_merged([layer.pod_annotations for layer in layers]),
        env=tuple({variable.name: variable for layer in layers for variable in layer.env}.values()),
    )


def count_gpus(run: AlignmentRun, stage: Stage) -> int:
    """GPUs that each pod of a stage is made for; a limit of the user's own goes before it."""
    engine = run.spec.engine.tensor_parallel
    by_stage = {
        Stage.FETCH: 0,
        Stage.EXPORT: 0,
        Stage.PROMPTS: engine if run.spec.prompts.agents.need_engine else 0,
        Stage.JUDGE: engine if run.spec.judging.need_engine else 0,
        Stage.TRAIN: run.spec.training.gpus_per_node,
    }
    own: StageOverrides = getattr(run.spec.stages, stage)
    limit = own.resources.limits.get(GPU)
    return by_stage.get(stage, engine) if limit is None else int(parse_quantity(limit))


def build_resources(overrides: StageOverrides, gpus: int) -> KubernetesObject:
    """Requests and limits of a stage's container: those that are written down, the GPUs, and least requests.

    Where there is a limit and no request, Kubernetes requests the limit.
    """
    limits = {name: amount for name, amount in overrides.resources.limits.items() if name != GPU}
    if gpus:
        limits[GPU] = str(gpus)
    per_gpu = {"cpu": str(_CORES_PER_GPU * gpus), "memory": f"{_GIB_PER_GPU * gpus}Gi"}
    least = per_gpu if gpus else _LEAST_REQUESTS
    requests = {name: amount for name, amount in least.items() if name not in limits} | overrides.resources.requests
    requests = {
        name: amount
        for name, amount in requests.items()
        if name not in limits or parse_quantity(amount) <= parse_quantity(limits[name])
    }
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _merged(maps: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {name: value for values in maps for name, value in values.items()}


def _last(values: Sequence[str | None]) -> str | None:
    return next((value for value in reversed(values) if value), None)
