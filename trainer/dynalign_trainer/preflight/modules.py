"""The model as transformers will have it in memory, built without its weights and held against its files."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_contract.settings import TrainingMethod, TrainingSettings
from dynalign_contract.training_choice import TrainingChoice
from dynalign_trainer.models.training_choice import choose_training
from dynalign_trainer.preflight.headers import Tensor
from dynalign_trainer.preflight.text_model import text_model_remedy
from dynalign_trainer.runtime.importing import importing


def build_model(folder: Path) -> Any:
    """The model that `config.json` describes, on the meta device. Raises BadInputError when there is none."""
    with importing():
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # what a wrong config.json raises depends on the class that it describes
        why = " ".join(str(error).split())[:300]
        raise BadInputError(
            f"{folder / 'config.json'} describes no model that transformers can build ({type(error).__name__}: {why}). "
            "Restore the file, or name another model in spec.model.uri."
        ) from error


def check_names(model: Any, names: Collection[str], where: str) -> None:
    """Make sure that most tensors have the same names in memory as in the files: a mixture of experts renames a few.

    Raises BadInputError naming one of each.
    """
    wanted = [name for name, _ in model.named_parameters()]
    if sum(name in names for name in wanted) * 2 >= len(wanted):
        return
    raise BadInputError(
        f"{where} calls its tensors otherwise than {type(model).__name__} does: it has "
        f"{next(iter(sorted(names)), 'none')} and no {wanted[0]}. vLLM and merging go by these names. "
        f"{text_model_remedy(where)}"
    )


def check_shapes(model: Any, tensors: Mapping[str, Tensor], where: str) -> None:
    """Hold the shapes in the files against those that config.json asks for. Raises BadInputError naming a tensor."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found = tensors.get(name)
        if found is not None and found.shape != tuple(parameter.shape):
            raise BadInputError(
                f"{name} has the shape {list(found.shape)} in the files of {where}, but config.json asks for "
                f"{list(parameter.shape)}: the two are not of one model. Restore the file that is wrong, or save the "
                "model again with transformers (save_pretrained)."
            )


def check_training(model: Any, names: Collection[str], training: TrainingSettings) -> TrainingChoice:
    """Choose how the policy is trained, and make sure that it can be merged and sampled then.

    Raises BadConfigError naming the field.
    """
    choice = choose_training(model, names, training)
    if training.method is TrainingMethod.LORA:
        return choice
    parameters = dict(model.named_parameters(remove_duplicate=False))
    written = {id(parameter) for name, parameter in parameters.items() if name in names}
    if missing := sorted(name for name, parameter in parameters.items() if id(parameter) not in written):
        raise BadConfigError(
            f"spec.training.method is Full, but {type(model).__name__} trains {missing[0]}, which the model's files do "
            "not have, so its weights could not be written as they were read. Write method: LoRA."
        )
    return choice


def count_rows(model: Any) -> int:
    """Rows of the input embedding, as config.json has it."""
    return int(model.get_input_embeddings().weight.shape[0])
