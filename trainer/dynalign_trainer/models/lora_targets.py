"""Which modules of a model can have a LoRA adapter in every stage: trained by PEFT, merged, and sampled by vLLM.

These are the linear layers whose weights have the same names in memory as in the model's files. The input embedding and
the output head are none of them: with tied weights the two are one tensor, which neither merging nor vLLM's adapters
change in both places.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from dynalign_contract.errors import BadConfigError

_FIELD: Final = "spec.training.lora.targetModules"
_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")
_MLP: Final = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")
"""The usual names of linear layers, fused ones included, in the order of a forward pass."""
_RENAME: Final = (
    "Write the model into a folder with the names that it has in memory, `python -m "
    "dynalign_trainer.preflight.text_model MODEL FOLDER`, and name that folder in spec.model.uri."
)
"""Saving it with transformers alone would not help: `save_pretrained` writes the names that it has read."""


@dataclass(frozen=True)
class Targets:
    """The modules of a model, by the last parts of their names."""

    allowed: frozenset[str]
    """Names that `targetModules` may hold."""
    refused: dict[str, str]
    """Every other name of a module with a weight -> why it cannot be adapted."""
    renamed: tuple[str, ...] = ()
    """Linear layers, by their whole names, whose weights are called otherwise in the model's files."""


def find_targets(model: Any, tensor_names: Collection[str]) -> Targets:
    """The modules that can be adapted; the model may lie on the meta device.

    `tensor_names` are those of the model's files (`model_files.read_tensor_files`).
    """
    import torch

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    allowed, refused, renamed = set(), {}, []
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if not hasattr(module, "weight"):
            continue
        if module is head:
            refused[last] = "is the output head, whose weights may be the embedding's"
        elif module is embedding or isinstance(module, torch.nn.Embedding):
            refused[last] = "is an embedding"
        elif not isinstance(module, torch.nn.Linear):
            refused[last] = f"is no linear layer ({type(module).__name__})"
        elif f"{name}.weight" not in tensor_names:
            renamed.append(name)
        else:
            allowed.add(last)
    refused |= dict.fromkeys(
        {name.rpartition(".")[2] for name in renamed} - allowed, "has another name in the model's files"
    )
    return Targets(frozenset(allowed - refused.keys()), refused, tuple(renamed))


def check_targets(model: Any, target_modules: Iterable[str], tensor_names: Collection[str]) -> None:
    """Make sure that every named module is there and can be adapted; the model may lie on the meta device.

    Raises BadConfigError naming the modules, why they cannot be adapted, and those that can.
    """
    wanted = set(target_modules)
    targets = find_targets(model, tensor_names)
    name = type(model).__name__
    offer = _offer(targets, name)
    if missing := sorted(wanted - targets.allowed - targets.refused.keys()):
        raise BadConfigError(f"{_FIELD} names {', '.join(missing)}, which {name} does not have. {offer}")
    if unfit := sorted(wanted - targets.allowed):
        reasons = "; ".join(f"{module} {targets.refused[module]}" for module in unfit)
        raise BadConfigError(f"{_FIELD} names {', '.join(unfit)}, which cannot be adapted: {reasons}. {offer}")
    if foreign := sorted(module for module in targets.renamed if module.rpartition(".")[2] in wanted):
        raise BadConfigError(
            f"{_FIELD}: {name} calls {foreign[0]}.weight{_and_more(foreign)} otherwise in memory than in the model's "
            f"files, so an adapter could not be merged into them. {_RENAME}"
        )


def auto_targets(model: Any, tensor_names: Collection[str]) -> tuple[tuple[str, ...], str]:
    """The usual modules that this model has and that can be adapted, and why these.

    Of a mixture of experts they are those of attention: PEFT and vLLM do not adapt fused experts alike. Raises
    BadConfigError when there is none, with those that could be named.
    """
    targets, name = find_targets(model, tensor_names), type(model).__name__
    renamed = {module.rpartition(".")[2] for module in targets.renamed}
    has_experts = any("experts" in module.split(".") for module, _ in model.named_modules())
    usual = _ATTENTION if has_experts else (*_ATTENTION, *_MLP)
    chosen = tuple(module for module in usual if module in targets.allowed - renamed)
    if not chosen:
        raise BadConfigError(
            f"{_FIELD} is [Auto], which takes {', '.join(usual)}; {name} has none of these that can be adapted. "
            f"{_offer(targets, name)}"
        )
    if has_experts:
        return chosen, f"{name} is a mixture of experts, of which only attention is adapted; experts and router stay"
    return chosen, f"the projections of attention and MLP that {name} has"


def _offer(targets: Targets, model: str) -> str:
    if targets.allowed:
        return f"Write some of {', '.join(sorted(targets.allowed))}."
    if targets.renamed:
        return f"No module of {model} can be adapted: all its linear layers have other names in the files. {_RENAME}"
    return f"No module of {model} can be adapted, for it has no linear layers. Write spec.training.method: Full."


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
