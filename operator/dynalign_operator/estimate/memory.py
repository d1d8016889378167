"""Peak memory of an accelerator by stage, and bytes on the run's volume."""

import math
from dataclasses import dataclass
from typing import Final

from dynalign_contract.accelerators import GIB
from dynalign_contract.settings import OptimizerOffload, TrainingBackend, TrainingMethod
from dynalign_contract.stages import Stage
from dynalign_contract.training_memory import TrainingMemory, has_room, trained_weights, training_memory
from dynalign_operator.api.quantities import parse_quantity
from dynalign_operator.api.rollouts import run_overrides
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.estimate.timing import USABLE, Machine
from dynalign_operator.manifests.overrides import build_resources

_ENGINE_RESERVE: Final = 4 * GIB
"""Activations, captured graphs and workspaces of an engine."""
_DEFAULT_LENGTH: Final = 4096
_HOST_RESERVE_GIB: Final = 16
"""Memory of a training pod beside the optimiser: libraries, the batch, and weights on their way to the GPUs."""


@dataclass(frozen=True)
class Need:
    """Memory that a stage needs of one accelerator, against what there is, in bytes."""

    bytes: float
    available: float
    remedy: str
    """What to change in the specification where it does not fit."""

    @property
    def fits(self) -> bool:
        """Whether the accelerator has that much."""
        return self.bytes <= self.available


def engine_need(spec: AlignmentRunSpec, machine: Machine) -> Need:
    """Weights, one sequence of full length, and the engine's own."""
    parallel = machine.placement.parallel
    length = spec.engine.max_length or _DEFAULT_LENGTH
    cache = length * machine.shape.kv_values * machine.accelerator.value_bytes
    reserve = _ENGINE_RESERVE if machine.accelerator.value_bytes == 2 else GIB
    return Need(
        bytes=(machine.weight_bytes + cache) / parallel + reserve,
        available=USABLE * machine.accelerator.memory_gib * GIB,
        remedy="raise engine.tensorParallel, or lower engine.maxLength",
    )


def training_need(spec: AlignmentRunSpec, machine: Machine) -> Need:
    """Weights, states of what is trained, activations and logits, as ZeRO splits them."""
    memory = _training_memory(spec, machine, recomputes=recomputes(spec, machine))
    return Need(
        bytes=memory.total + (memory.host if machine.accelerator.is_cpu else 0),
        available=0.95 * machine.accelerator.memory_gib * GIB,
        remedy=_training_remedy(spec, machine),
    )


def host_need(spec: AlignmentRunSpec, machine: Machine) -> Need | None:
    """Memory of a training pod for the optimiser, against what it asks for; None where the optimiser lies on GPUs."""
    if spec.training.optimizer_offload is OptimizerOffload.NONE or machine.accelerator.is_cpu:
        return None
    memory = _training_memory(spec, machine, recomputes=recomputes(spec, machine))
    needed = memory.host * machine.placement.accelerators
    resources = build_resources(run_overrides(spec, Stage.TRAIN), machine.placement.accelerators)
    asked = resources.get("limits", {}).get("memory") or resources["requests"]["memory"]
    return Need(
        bytes=needed,
        available=float(parse_quantity(asked)),
        remedy=f"write {math.ceil(needed / GIB + _HOST_RESERVE_GIB)}Gi or more for memory in "
        "stages.train.resources.requests",
    )


def _training_remedy(spec: AlignmentRunSpec, machine: Machine) -> str:
    """What to change where training does not fit; the optimiser's place first, where that is enough."""
    usual = "raise training.zeroStage, gpusPerNode or nodes, or lower training.tokensPerMicroBatch"
    training = spec.training
    if not training.may_offload or training.optimizer_offload is OptimizerOffload.CPU or machine.accelerator.is_cpu:
        return usual
    moved = training.model_copy(update={"optimizer_offload": OptimizerOffload.CPU})
    offloaded = spec.model_copy(update={"training": moved})
    need, host = training_need(offloaded, machine), host_need(offloaded, machine)
    if host is None or not need.fits:
        return usual
    return (
        f"write training.optimizerOffload: CPU, with which it needs {need.bytes / GIB:.0f} GiB, and "
        f"{host.bytes / GIB:.0f} GiB of each pod's memory; or {usual}"
    )


def recomputes(spec: AlignmentRunSpec, machine: Machine) -> bool:
    """Whether training computes activations again in the backward pass."""
    chosen = spec.training.gradient_checkpointing
    if chosen is not None:
        return chosen
    if spec.training.backend is TrainingBackend.TRL or machine.shape.keeps_scores:
        return True
    memory = _training_memory(spec, machine, recomputes=False)
    return not has_room(memory.passing, machine.accelerator.memory_gib * GIB - memory.weights - memory.states)


def _training_memory(spec: AlignmentRunSpec, machine: Machine, *, recomputes: bool) -> TrainingMemory:
    return training_memory(
        spec.training,
        machine.shape,
        processes=max(1, machine.placement.total),
        value_bytes=machine.accelerator.value_bytes,
        tokens=spec.training.tokens_per_pass,
        recomputes=recomputes,
    )


def volume_bytes(spec: AlignmentRunSpec, machine: Machine) -> float:
    """The model, a policy an iteration, two checkpoints while a third is written, and the export."""
    if spec.training.method is TrainingMethod.FULL:
        policies = spec.iterations * machine.shape.parameters * 4.0
        checkpoint = machine.shape.parameters * 14.0
    else:
        policies = spec.iterations * trained_weights(spec.training, machine.shape) * 4
        checkpoint = trained_weights(spec.training, machine.shape) * 14
    return 2 * machine.weight_bytes + policies + 3 * checkpoint
