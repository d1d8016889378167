"""Peak memory of an accelerator by stage, and bytes on the run's volume."""

from dataclasses import dataclass
from typing import Final

from dynalign_contract.accelerators import GIB
from dynalign_contract.settings import TrainingMethod
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.estimate.timing import USABLE, Machine

_LOGITS: Final = 4 * 2**27 * 4
"""Bytes of the head: chunks of 2^27 logits in Float32, about four alive at once."""
_ENGINE_RESERVE: Final = 4 * GIB
"""Activations, captured graphs and workspaces of an engine."""
_DEFAULT_LENGTH: Final = 4096
_RANK: Final = 16
_MASTER: Final = 16
"""Bytes of a trained weight beside its working copy: gradient, Float32 master and two moments, 4 each."""


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
    parallel = max(1, machine.placement.accelerators)
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
    training, shape, total = spec.training, machine.shape, max(1, machine.placement.total)
    stage = training.zero_stage
    weights = machine.weight_bytes / (total if stage == 3 else 1)
    trained = shape.parameters if training.method is TrainingMethod.FULL else adapter_weights(spec, machine)
    states = trained * _MASTER / (total if stage >= 1 else 1)
    tokens = training.tokens_per_micro_batch or 4096
    of_layer = shape.hidden * tokens * machine.accelerator.value_bytes
    activations = of_layer * (shape.layers + 20 if training.gradient_checkpointing else shape.layers * 16)
    gathered = 2 * machine.weight_bytes / shape.layers if stage == 3 else 0
    logits = min(_LOGITS, 4 * tokens * shape.vocabulary * 4)
    return Need(
        bytes=weights + states + activations + gathered + logits,
        available=0.95 * machine.accelerator.memory_gib * GIB,
        remedy="raise training.zeroStage, gpusPerNode or nodes, or lower training.tokensPerMicroBatch",
    )


def adapter_weights(spec: AlignmentRunSpec, machine: Machine) -> float:
    """Weights of the adapter."""
    rank = spec.training.lora.rank if spec.training.lora is not None else _RANK
    return float(rank * machine.shape.adapter_width)


def volume_bytes(spec: AlignmentRunSpec, machine: Machine) -> float:
    """The model, a policy an iteration, two checkpoints while a third is written, and the export."""
    if spec.training.method is TrainingMethod.FULL:
        policies = spec.iterations * machine.shape.parameters * 4.0
        checkpoint = machine.shape.parameters * 14.0
    else:
        policies = spec.iterations * adapter_weights(spec, machine) * 4
        checkpoint = adapter_weights(spec, machine) * 14
    return 2 * machine.weight_bytes + policies + 3 * checkpoint
