"""Where and with what a stage's pods run: the installation's defaults, and what the run says otherwise."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeVar

from dynalign_contract.stages import SHARDED_STAGES, Stage
from dynalign_operator.api.durations import parse_duration
from dynalign_operator.api.pods import Resources, StageOverrides
from dynalign_operator.api.quantities import parse_quantity
from dynalign_operator.api.rollouts import pods_stage, run_overrides
from dynalign_operator.api.v1alpha1 import AlignmentRun, AlignmentRunSpec
from dynalign_operator.manifests.build_settings import GPU, PodDefaults
from dynalign_operator.manifests.objects import KubernetesObject


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)
V = TypeVar("V")

_GRACE_SECONDS: Final = {Stage.TRAIN: 120}
"""Training saves a checkpoint after SIGTERM; the other stages only finish a step."""
_DEFAULT_GRACE_SECONDS: Final = 30
_LEAST_REQUESTS: Final = {"cpu": "100m", "memory": "512Mi"}
"""Requests of a stage without GPUs: enough not to be evicted first, and little enough for a small node."""
CORES_PER_GPU: Final = 2
"""Cores that a pod asks for with each of its GPUs, unless the run or the installation says otherwise."""
_GIB_PER_GPU: Final = 8
"""Memory of the node that feeds a GPU. Large models need more (`trainer.podDefaults`, `spec.stages`)."""


def stage_overrides(run: AlignmentRun, stage: Stage, defaults: PodDefaults) -> StageOverrides:
    """The run's overrides of a stage on top of the installation's: maps and variables are merged by name."""
    own = run_overrides(run.spec, stage)
    layers = (*defaults.of(pods_stage(run.spec, stage)), own)
    return StageOverrides.model_construct(  # both lists together may be longer than one may be
        resources=Resources.model_construct(
            requests=_merged([layer.resources.requests for layer in layers]),
            limits=_merged([layer.resources.limits for layer in layers]),
        ),
        gpu_resource=_last([layer.gpu_resource for layer in layers]),
        resource_claims=_named([layer.resource_claims for layer in layers]),
        node_selector=_merged([layer.node_selector for layer in layers]),
        affinity=_last([layer.affinity for layer in layers]),
        topology_spread=_last([layer.topology_spread for layer in layers]) or (),
        tolerations=tuple(dict.fromkeys(toleration for layer in layers for toleration in layer.tolerations)),
        priority_class_name=own.priority_class_name
        or run.spec.scheduling.priority_class_name
        or _last([layer.priority_class_name for layer in layers]),
        runtime_class_name=_last([layer.runtime_class_name for layer in layers]),
        image=_last([layer.image for layer in layers]),
        service_account_name=_last([layer.service_account_name for layer in layers]),
        pod_labels=_merged([layer.pod_labels for layer in layers]),
        pod_annotations=_merged([layer.pod_annotations for layer in layers]),
        env=_named([layer.env for layer in layers]),
        volumes=_named([layer.volumes for layer in layers]),
        shared_memory=_last([layer.shared_memory for layer in layers]),
        termination_grace_period=_last([layer.termination_grace_period for layer in layers]),
    )


def grace_seconds(stage: Stage, overrides: StageOverrides) -> int:
    """Time between SIGTERM and SIGKILL of a stage's pods."""
    if overrides.termination_grace_period is not None:
        return int(parse_duration(overrides.termination_grace_period).total_seconds())
    return _GRACE_SECONDS.get(stage, _DEFAULT_GRACE_SECONDS)


def count_gpus(spec: AlignmentRunSpec, stage: Stage, resource: str | None = None) -> int:
    """GPUs that each pod of a stage is made for; none where the run limits them to "0".

    `resource`: what the installation calls a GPU, beside the usual name and the run's own.
    """
    engine = spec.engine.gpus
    by_stage = {
        Stage.FETCH: 0,
        Stage.EXPORT: 0,
        Stage.REPORT: 0,
        Stage.PROMPTS: engine if spec.prompts.agents.need_engine else 0,
        Stage.JUDGE: engine if spec.judging.need_engine else 0,
        Stage.TRAIN: spec.training.gpus_per_node,
    }
    own = run_overrides(spec, stage)
    limits = (own.resources.limits.get(name) for name in (GPU, own.gpu_resource, resource) if name)
    if any(limit is not None and parse_quantity(limit) == 0 for limit in limits):
        return 0
    return by_stage.get(stage, engine)


def count_engines(spec: AlignmentRunSpec, stage: Stage) -> int:
    """Engines of each pod of a stage that share its GPUs; none where it has no GPU, or trains."""
    return spec.engine.replicas if stage is not Stage.TRAIN and count_gpus(spec, stage) else 0


def count_pods(spec: AlignmentRunSpec, stage: Stage) -> int:
    """Pods of a stage's Job: nodes of the training, shards, or one."""
    if stage is Stage.TRAIN:
        return spec.training.nodes
    return spec.generation.shards if stage in SHARDED_STAGES else 1


def build_resources(overrides: StageOverrides, gpus: int) -> KubernetesObject:
    """Requests and limits of a stage's container: those that are written down, the GPUs, and least requests.

    Where there is a limit and no request, Kubernetes requests the limit.
    """
    resource = overrides.gpu_resource or GPU
    limits = {name: amount for name, amount in overrides.resources.limits.items() if name not in (GPU, resource)}
    if gpus and not overrides.resource_claims:
        limits[resource] = str(gpus)
    per_gpu = {"cpu": str(CORES_PER_GPU * gpus), "memory": f"{_GIB_PER_GPU * gpus}Gi"}
    least = per_gpu if gpus else _LEAST_REQUESTS
    requests = {name: amount for name, amount in least.items() if name not in limits} | overrides.resources.requests
    requests = {
        name: amount
        for name, amount in requests.items()
        if name not in limits or parse_quantity(amount) <= parse_quantity(limits[name])
    }
    claims = [{"name": claim.name} for claim in overrides.resource_claims] if gpus else []
    return {
        "requests": requests,
        **({"limits": limits} if limits else {}),
        **({"claims": claims} if claims else {}),
    }


def _merged(maps: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {name: value for values in maps for name, value in values.items()}


def _named(layers: Sequence[Sequence[T]]) -> tuple[T, ...]:
    """Items of all layers; one of a later layer replaces that of the same name."""
    return tuple({item.name: item for layer in layers for item in layer}.values())


def _last(values: Sequence[V | None]) -> V | None:
    """The value of the strongest layer that has one."""
    return next((value for value in reversed(values) if value), None)
