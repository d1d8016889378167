"""A LoRA adapter added to its base model, tensor by tensor: W' = W + (alpha / r) B A (arXiv 2106.09685, section 4.1).

The sum is formed in float32, because an update is small beside the weights that are rounded with it. Tensors are read
one by one, so a large model needs no more memory than a small one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_trainer.model_folder import read_json

_PREFIX: Final = "base_model.model."
_DOWN: Final = ".lora_A.weight"
_UP: Final = ".lora_B.weight"
_UNSUPPORTED: Final = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out")


@dataclass(frozen=True)
class Adapter:
    """The update of every adapted weight."""

    folder: Path
    scale: float
    """alpha / r."""
    pairs: dict[str, tuple[Any, Any]]
    """Name of the base model's tensor -> A of shape (r, in) and B of shape (out, r)."""

    def add_to(self, name: str, weight: Any) -> Any:
        """The merged weight in float32; the weight itself where nothing is adapted.

        Raises BadInputError when the shapes do not fit.
        """
        import torch

        if name not in self.pairs:
            return weight
        down, up = (matrix.to(torch.float32) for matrix in self.pairs[name])
        if (up.shape[0], down.shape[1]) != tuple(weight.shape):
            raise self.misfit(f"{name} has the shape {tuple(weight.shape)}, its update {(up.shape[0], down.shape[1])}")
        return torch.addmm(weight.to(torch.float32), up, down, alpha=self.scale)

    def misfit(self, why: str) -> BadInputError:
        """The error that says that the adapter was trained on another model."""
        return BadInputError(
            f"the adapter in {self.folder} does not fit the base model ({why}). "
            "Remove the folder to have its iteration's training run again."
        )


def read_adapter(folder: Path) -> Adapter:
    """Read a plain LoRA adapter as PEFT writes it. Raises BadInputError naming the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "adapter_config.json"
    config = read_json(path)
    if used := [name for name in _UNSUPPORTED if config.get(name)]:
        raise BadInputError(f"{path} sets {', '.join(used)}; only plain LoRA adapters can be merged.")
    try:
        tensors = load_file(folder / "adapter_model.safetensors")
        scale = config["lora_alpha"] / config["r"]
        pairs = {
            name.removeprefix(_PREFIX).removesuffix(_DOWN) + ".weight": (down, tensors[name.removesuffix(_DOWN) + _UP])
            for name, down in tensors.items()
            if name.endswith(_DOWN)
        }
    except (OSError, SafetensorError, KeyError, TypeError, ZeroDivisionError) as error:
        raise BadInputError(
            f"the adapter in {folder} cannot be read ({error}). "
            "Remove the folder to have its iteration's training run again."
        ) from error
    return Adapter(folder, scale, pairs)


def merged_tensors(base: Path, adapter: Adapter | None) -> Iterator[tuple[str, Any]]:
    """Name and value of every tensor of the base model, the adapter added; adapted ones in float32.

    Raises BadInputError when the adapter names tensors that the base model does not have.
    """
    seen = set()
    for path in sorted(base.glob("*.safetensors")):
        for name, weight in file_tensors(path, adapter):
            seen.add(name)
            yield name, weight
    if adapter is not None and (missing := sorted(set(adapter.pairs) - seen)):
        raise adapter.misfit(f"the base model has no {missing[0]}")


def file_tensors(path: Path, adapter: Adapter | None) -> Iterator[tuple[str, Any]]:
    """The tensors of one safetensors file, the adapter added."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            weight = file.get_tensor(name)
            yield name, weight if adapter is None else adapter.add_to(name, weight)
