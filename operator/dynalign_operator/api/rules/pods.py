"""Where and with what the stages' pods run."""

import re
from typing import Final

from dynalign_contract.environment import RESERVED_PATTERN, is_reserved
from dynalign_contract.stages import Stage
from dynalign_operator.api.pods import ExtraVolume, StageOverrides
from dynalign_operator.api.quantities import parse_quantity
from dynalign_operator.api.rules.rule import Rule
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec

_GPU: Final = "nvidia.com/gpu"
_OWN_LABELS: Final = (
    r"(dynalign\.io/.*|batch\.kubernetes\.io/.*|job-name|controller-uid|app\.kubernetes\.io/(name|managed-by))"
)
_OWN_ANNOTATIONS: Final = (
    r"(dynalign\.io/.*|batch\.kubernetes\.io/.*|container\.apparmor\.security\.beta\.kubernetes\.io/.*"
    r"|seccomp\.security\.alpha\.kubernetes\.io/.*)"
)


def _has_as_many_gpus_as_it_uses(stage: Stage, used: str | None, message: str) -> Rule:
    """A limit of GPUs is what the stage uses, or "0": others would stand idle. `used` is CEL's path, None for none."""
    limits = f"self.stages.{stage}.resources.limits"
    limit = f"quantity(string({limits}['{_GPU}']))"
    numbers = f"[0, {used}]" if used else "[0]"  # text made of numbers has no length that an API server could estimate

    def holds(spec: AlignmentRunSpec) -> bool:
        overrides: StageOverrides = getattr(spec.stages, stage)
        limit = overrides.resources.limits.get(_GPU)
        counts = {0, spec.training.gpus_per_node if stage is Stage.TRAIN else spec.engine.gpus}
        return limit is None or parse_quantity(limit) in (counts if used else {0})

    return Rule(
        at="spec",
        field=f"stages.{stage}.resources.limits",
        cel=f"!('{_GPU}' in {limits}) || ({limit}.isInteger() && {limit}.asInteger() in {numbers})",
        message=message,
        holds=holds,
    )


_GPU_RULES: Final = (
    *(
        _has_as_many_gpus_as_it_uses(
            stage,
            "self.engine.tensorParallel * self.engine.replicas",
            f"asks for other GPUs than engine.tensorParallel x engine.replicas; remove {_GPU}, which is asked for by "
            'itself, or write "0" for none',
        )
        for stage in (Stage.ROLLOUT, Stage.PROMPTS, Stage.GENERATE, Stage.JUDGE, Stage.EVALUATE)
    ),
    _has_as_many_gpus_as_it_uses(
        Stage.TRAIN,
        "self.training.gpusPerNode",
        f"asks for other GPUs than training.gpusPerNode says; remove {_GPU}, which is asked for by itself, or "
        'write "0" for none',
    ),
    *(
        _has_as_many_gpus_as_it_uses(stage, None, f"asks for GPUs, which this stage does not use; remove {_GPU}")
        for stage in (Stage.FETCH, Stage.EXPORT, Stage.REPORT)
    ),
)


def _sources(volume: ExtraVolume) -> tuple[object, ...]:
    return (volume.persistent_volume_claim, volume.config_map, volume.empty_dir)


POD_RULES: Final = (
    *_GPU_RULES,
    Rule(
        at="spec.stages.*",
        field="resources.limits",
        cel=f"!has(self.gpuResource) || self.gpuResource == '{_GPU}' || !(self.gpuResource in self.resources.limits)"
        " || string(self.resources.limits[self.gpuResource]) == '0'",
        message="asks for a number of what gpuResource names, which is asked for by itself; remove it, or write "
        '"0" for none',
        holds=lambda overrides: (
            overrides.gpu_resource in (None, _GPU) or overrides.resources.limits.get(overrides.gpu_resource, "0") == "0"
        ),
    ),
    Rule(
        at="spec.stages.*.env[]",
        field="name",
        cel=f"!self.name.matches(r'^{RESERVED_PATTERN}$')",
        message="is a variable that dynalign sets itself, or that makes programs load other code; remove it",
        holds=lambda variable: not is_reserved(variable.name),
    ),
    Rule(
        at="spec.stages.*.env[]",
        field="value",
        cel="has(self.value) != has(self.valueFrom)",
        message="and valueFrom: one of them is needed, and only one; write value, or valueFrom.secretKeyRef",
        holds=lambda variable: (variable.value is None) != (variable.value_from is None),
    ),
    Rule(
        at="spec.stages.*",
        field="env",
        cel="self.env.all(x, self.env.exists_one(y, x.name == y.name))",
        message="names a variable twice; name each once",
        holds=lambda overrides: len({variable.name for variable in overrides.env}) == len(overrides.env),
    ),
    Rule(
        at="spec.stages.*",
        field="podLabels",
        cel=f"self.podLabels.all(k, !k.matches(r'^{_OWN_LABELS}$'))",
        message="has a label that dynalign or Kubernetes sets itself (dynalign.io/, batch.kubernetes.io/, job-name, "
        "controller-uid, app.kubernetes.io/name and managed-by); remove it",
        holds=lambda overrides: not any(re.fullmatch(_OWN_LABELS, name) for name in overrides.pod_labels),
    ),
    Rule(
        at="spec.stages.*",
        field="podAnnotations",
        cel=f"self.podAnnotations.all(k, !k.matches(r'^{_OWN_ANNOTATIONS}$'))",
        message="has an annotation that dynalign or Kubernetes sets itself, or that would lift the pod's confinement "
        "(dynalign.io/, batch.kubernetes.io/, container.apparmor..., seccomp...); remove it",
        holds=lambda overrides: not any(re.fullmatch(_OWN_ANNOTATIONS, name) for name in overrides.pod_annotations),
    ),
    Rule(
        at="spec.stages.*.resources",
        field="requests",
        cel="self.requests.all(k, !(k in self.limits) || "
        "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
        message="asks for more than limits allows; lower the request or raise the limit",
        holds=lambda resources: all(
            parse_quantity(amount) <= parse_quantity(resources.limits[name])
            for name, amount in resources.requests.items()
            if name in resources.limits
        ),
    ),
    Rule(
        at="spec.stages.*.tolerations[]",
        field="value",
        cel="self.operator != 'Exists' || !has(self.value)",
        message="must be absent with operator: Exists; remove it, or write operator: Equal",
        holds=lambda toleration: toleration.operator != "Exists" or toleration.value is None,
    ),
    Rule(
        at="spec.stages.*.tolerations[]",
        field="key",
        cel="has(self.key) || self.operator == 'Exists'",
        message="is missing; name a taint's key, or write operator: Exists to tolerate every taint",
        holds=lambda toleration: toleration.key is not None or toleration.operator == "Exists",
    ),
    Rule(
        at="spec.stages.*.tolerations[]",
        field="tolerationSeconds",
        cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        message="has an effect with effect: NoExecute only; set the effect, or remove it",
        holds=lambda toleration: toleration.toleration_seconds is None or toleration.effect == "NoExecute",
    ),
    Rule(
        at="spec.stages.*.volumes[]",
        field="",
        cel="[has(self.persistentVolumeClaim), has(self.configMap), has(self.emptyDir)].filter(x, x).size() == 1",
        message="needs one of persistentVolumeClaim, configMap and emptyDir, and only one",
        holds=lambda volume: sum(source is not None for source in _sources(volume)) == 1,
    ),
    Rule(
        at="spec.stages.*.volumes[]",
        field="mountPath",
        cel="!self.mountPath.contains('..')",
        message="must not contain two dots; write the folder itself",
        holds=lambda volume: ".." not in volume.mount_path,
    ),
    Rule(
        at="spec.stages.*",
        field="volumes",
        cel="self.volumes.all(x, self.volumes.exists_one(y, x.name == y.name)"
        " && self.volumes.exists_one(y, x.mountPath == y.mountPath))",
        message="uses a name or a mountPath twice; give each volume its own",
        holds=lambda overrides: all(
            len(set(values)) == len(values)
            for values in ([v.name for v in overrides.volumes], [v.mount_path for v in overrides.volumes])
        ),
    ),
)
