"""Which backend and which modules train a model: fetch and training choose by this one function.

The model may lie on the meta device, so that nothing but its configuration and the names of its tensors is needed.
"""

from collections.abc import Collection
from typing import Any, Final

from dynalign_contract.settings import TrainingBackend, TrainingMethod, TrainingSettings
from dynalign_contract.training_choice import MAX_REASON_LENGTH, TrainingChoice
from dynalign_trainer.models.lora_targets import auto_targets, check_targets
from dynalign_trainer.models.packable import check_packable, find_obstacles

_PACKED: Final = "Packed computes {model} as transformers does"
_TRL: Final = "Packed does not compute {obstacles} of {model}"


def choose_training(model: Any, tensor_names: Collection[str], training: TrainingSettings) -> TrainingChoice:
    """The settings with `Auto` replaced by what this model allows.

    `tensor_names` are those of the model's files (`model_files.read_tensor_files`). Raises BadConfigError when a named
    backend or a named module does not fit the model, or when `Auto` finds no module.
    """
    backend, backend_reason = choose_backend(model, training.backend)
    modules, target_reason = _choose_modules(model, tensor_names, training)
    return TrainingChoice(
        backend=backend,
        backend_reason=_shortened(backend_reason),
        target_modules=modules,
        target_reason=_shortened(target_reason),
    )


def choose_backend(model: Any, wanted: TrainingBackend) -> tuple[TrainingBackend, str]:
    """The backend, and why `Auto` is this one. Raises BadConfigError when it is Packed and cannot be."""
    name = type(model).__name__
    match wanted:
        case TrainingBackend.AUTO:
            if obstacles := find_obstacles(model):
                return TrainingBackend.TRL, _TRL.format(obstacles=" and ".join(obstacles), model=name)
            return TrainingBackend.PACKED, _PACKED.format(model=name)
        case TrainingBackend.PACKED:
            check_packable(model)
        case TrainingBackend.TRL:
            pass
    return wanted, ""


def apply_choice(training: TrainingSettings, choice: TrainingChoice) -> TrainingSettings:
    """The settings in which nothing is `Auto` any more."""
    lora = training.adapter
    if choice.target_modules:
        lora = lora.model_copy(update={"target_modules": choice.target_modules})
    return training.model_copy(update={"backend": choice.backend, "lora": lora})


def is_chosen(training: TrainingSettings) -> bool:
    """Whether nothing is left to choose."""
    needs_modules = training.method is TrainingMethod.LORA and training.adapter.is_auto
    return training.backend is not TrainingBackend.AUTO and not needs_modules


def named_choice(training: TrainingSettings) -> TrainingChoice:
    """The choice that settings without `Auto` make by themselves."""
    modules = training.adapter.target_modules if training.method is TrainingMethod.LORA else ()
    return TrainingChoice(backend=training.backend, target_modules=modules)


def _choose_modules(
    model: Any, tensor_names: Collection[str], training: TrainingSettings
) -> tuple[tuple[str, ...], str]:
    if training.method is not TrainingMethod.LORA:
        return (), ""
    wanted = training.adapter.target_modules
    if not training.adapter.is_auto:
        check_targets(model, wanted, tensor_names)
        return wanted, ""
    return auto_targets(model, tensor_names)


def _shortened(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON_LENGTH else f"{reason[: MAX_REASON_LENGTH - 3]}..."
