"""Memory that a training process needs of its device, and whether activations are computed again. Pure.

Activations are what a forward pass keeps for the backward pass. tests/unit/trainer/test_training_memory.py holds the
figures against passes of real models' configurations, counted tensor by tensor.
"""

from dataclasses import dataclass
from typing import Final

from dynalign_contract.model_shape import ModelShape
from dynalign_contract.settings import LoraSettings, OptimizerOffload, TrainingMethod, TrainingSettings

_KEPT: Final = {TrainingMethod.LORA: 3.3, TrainingMethod.FULL: 2.6}
"""Values that a layer keeps for a token, divided by the values that its projections give. An adapter, whose factors are
float32, keeps its inputs in that type besides."""
_LAYER_INPUTS: Final = 1
"""Values that a layer keeps for a token where it is computed again, divided by the hidden size."""
_LOGITS: Final = 4 * 2**27 * 4
"""Bytes of the head: chunks of 2^27 logits in float32, about four alive at once."""
_TRAINED: Final = 16
"""Bytes of a trained weight beside its working copy: gradient, float32 master and two moments, 4 each."""
_GRADIENT: Final = 4
"""Bytes of a trained weight's sum of gradients, where DeepSpeed keeps one beside that of the optimiser."""
_SHARE: Final = 0.8
"""Share of a device's memory that a pass without recomputation may take: allocators leave gaps."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that a process needs at its peak."""

    weights: float
    states: float
    """Gradients, float32 masters and moments of what is trained."""
    activations: float
    gathered: float
    """Weights of the layers at work where ZeRO-3 spreads them over the processes."""
    logits: float
    host: float = 0.0
    """Memory of the machine, for states that do not lie on the device."""

    @property
    def total(self) -> float:
        """Everything on the device together."""
        return self.weights + self.states + self.passing

    @property
    def passing(self) -> float:
        """What a forward and backward pass needs beside weights and states."""
        return self.activations + self.gathered + self.logits


def training_memory(
    training: TrainingSettings,
    shape: ModelShape,
    *,
    processes: int,
    value_bytes: int,
    tokens: int,
    recomputes: bool,
) -> TrainingMemory:
    """Memory of one of so many processes, with `tokens` in a pass and values of `value_bytes` bytes."""
    weights = float(shape.parameters * value_bytes)
    is_spread, has_shared_states = training.zero_stage == 3, training.zero_stage >= 1
    trained = trained_weights(training, shape) / (processes if has_shared_states else 1)
    states, host = trained * _TRAINED, 0.0
    if training.optimizer_offload is OptimizerOffload.CPU:
        # ZeRO-2 sums gradients on the device and hands the sum over; ZeRO-3 keeps the sum beside the optimiser too.
        summed = trained * _GRADIENT
        states, host = (0.0, states + summed) if is_spread else (summed, states)
    whole = _KEPT[training.method] * shape.layer_outputs
    kept = _LAYER_INPUTS * shape.hidden * shape.layers + whole if recomputes else whole * shape.layers
    return TrainingMemory(
        weights=weights / (processes if is_spread else 1),
        states=states,
        activations=kept * tokens * value_bytes,
        gathered=2 * weights / shape.layers if is_spread else 0.0,
        logits=float(min(_LOGITS, 4 * tokens * shape.vocabulary * 4)),
        host=host,
    )


def trained_weights(training: TrainingSettings, shape: ModelShape) -> float:
    """Weights that training changes."""
    if training.method is TrainingMethod.FULL:
        return float(shape.parameters)
    return float((training.lora or LoraSettings()).rank * shape.adapter_width)


def has_room(needed: float, available: float) -> bool:
    """Whether activations that need so many bytes can be kept, with room for what an estimate does not see."""
    return needed <= _SHARE * available
