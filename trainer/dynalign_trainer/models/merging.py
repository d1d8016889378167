"""The base model's weights after training, tensor by tensor.

A LoRA adapter is added: W' = W + (alpha / r) B A (arXiv 2106.09685, section 4.1), in float32, because an update is
small beside the weights that are rounded with it. All weights trained take the place of the base model's. Tensors are
read one by one, so a large model needs no more memory than a small one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.files import read_model_files, read_tensor_files
from dynalign_trainer.models.plain_adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    find_pairs,
    read_plain_config,
    unreadable,
)

_PLAIN_NUMBERS: Final = frozenset({"F64", "F32", "BF16", "F16"})
"""Formats of safetensors whose numbers are the weights themselves."""


class TrainedWeights(Protocol):
    """The weights that an iteration trained, as a change of the base model's."""

    @property
    def names(self) -> frozenset[str]:
        """Tensors of the base model that training changed."""
        ...

    def apply(self, name: str, weight: Any) -> Any:
        """The tensor after training, in float32 where it was trained. Raises BadInputError when it does not fit."""
        ...

    def mismatch_error(self, why: str) -> BadInputError:
        """The error for weights that were trained on another model; `why` is the reason."""
        ...


@dataclass(frozen=True)
class FullWeights:
    """All weights of a model, trained."""

    folder: Path
    files: dict[str, Path]
    """Name of a tensor -> the file that holds it."""

    @property
    def names(self) -> frozenset[str]:
        """All tensors in the folder."""
        return frozenset(self.files)

    def apply(self, name: str, weight: Any) -> Any:
        """The trained tensor."""
        from safetensors import safe_open

        if name not in self.files:
            return weight
        with safe_open(self.files[name], framework="pt") as file:
            trained = file.get_tensor(name)
        if trained.shape != weight.shape:
            raise self.mismatch_error(f"{name} has the shape {tuple(weight.shape)}, here {tuple(trained.shape)}")
        return trained

    def mismatch_error(self, why: str) -> BadInputError:
        """The error for weights that belong to another model; `why` is the reason."""
        return BadInputError(
            f"the weights in {self.folder} do not fit the base model ({why}). "
            "Remove the folder to have its iteration's training run again."
        )


@dataclass(frozen=True)
class Adapter:
    """The update of every adapted weight."""

    folder: Path
    scale: float
    """alpha / r."""
    pairs: dict[str, tuple[Any, Any]]
    """Name of the base model's tensor -> A of shape (r, in) and B of shape (out, r)."""

    @property
    def names(self) -> frozenset[str]:
        """The adapted tensors."""
        return frozenset(self.pairs)

    def apply(self, name: str, weight: Any) -> Any:
        """The merged weight in float32; the weight itself where nothing is adapted.

        Raises BadInputError when the shapes do not fit.
        """
        import torch

        if name not in self.pairs:
            return weight
        down, up = (matrix.to(torch.float32) for matrix in self.pairs[name])
        if (up.shape[0], down.shape[1]) != tuple(weight.shape):
            raise self.mismatch_error(
                f"{name} has the shape {tuple(weight.shape)}, its update {(up.shape[0], down.shape[1])}"
            )
        return torch.addmm(weight.to(torch.float32), up, down, alpha=self.scale)

    def mismatch_error(self, why: str) -> BadInputError:
        """The error for an adapter that was trained on another model; `why` is the reason."""
        return BadInputError(
            f"the adapter in {self.folder} does not fit the base model ({why}). "
            "Remove the folder to have its iteration's training run again."
        )


def load_trained_weights(folder: Path) -> TrainedWeights:
    """Read what an iteration's training wrote. Raises BadInputError naming the file."""
    return read_adapter(folder) if is_adapter(folder) else _read_full(folder)


def is_adapter(folder: Path) -> bool:
    """Whether training wrote an adapter here, and not all weights."""
    return (folder / ADAPTER_CONFIG).exists()


def _read_full(folder: Path) -> FullWeights:
    files = read_tensor_files(folder)
    if not files:
        raise BadInputError(
            f"{folder} holds neither an adapter nor weights. Remove it to have its iteration's training run again."
        )
    return FullWeights(folder, files)


def read_adapter(folder: Path) -> Adapter:
    """Read a plain LoRA adapter as PEFT writes it. Raises BadInputError naming the file, and what is not plain."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_plain_config(folder)
    try:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        scale = config["lora_alpha"] / config["r"]
    except (OSError, SafetensorError, KeyError, TypeError, ZeroDivisionError) as error:
        raise unreadable(folder, error) from error
    pairs = {name: (tensors[down], tensors[up]) for name, (down, up) in find_pairs(tensors, folder).items()}
    return Adapter(folder, scale, pairs)


def check_fit(change: TrainedWeights, base: Path) -> None:
    """Raise BadInputError when the change names tensors that the base model's files do not have, or quantises.

    Whole weights must also have every one of them: an engine that exchanges its weights would keep the others.
    """
    names = read_tensor_files(base).keys()
    check_number_formats(change, base)
    if missing := sorted(change.names - names):
        raise change.mismatch_error(f"the base model has no {missing[0]}")
    if isinstance(change, FullWeights) and (absent := sorted(names - change.names)):
        raise change.mismatch_error(f"they lack {absent[0]}")


def check_number_formats(change: TrainedWeights, base: Path) -> None:
    """Raise BadInputError when a tensor that training changed is stored in quantised form in the base model's files.

    Its numbers are codes, which mean something only with the scales beside them: nothing can be added to them.
    """
    from safetensors import safe_open

    files = read_tensor_files(base)
    for path in sorted(set(files.values())):
        with safe_open(path, framework="pt") as file:
            kinds = {name: str(file.get_slice(name).get_dtype()) for name in change.names if files.get(name) == path}
        if coded := sorted(name for name, kind in kinds.items() if kind not in _PLAIN_NUMBERS):
            raise BadInputError(
                f"{path} stores {coded[0]} in the format {kinds[coded[0]]}: the base model is quantised, and what was "
                "trained cannot be merged into it. Name the model with unquantised weights (float32, bfloat16 or "
                "float16) in spec.model.uri, and start a new run."
            )


def merged_tensors(base: Path, adapter: Adapter | None) -> Iterator[tuple[str, Any]]:
    """Name and value of every tensor of the base model, the adapter added; adapted ones in float32.

    Raises BadInputError when the adapter names tensors that the base model does not have.
    """
    if adapter is not None:
        check_fit(adapter, base)
    for file in read_model_files(base).weights:
        for name, weight in file_tensors(base / file):
            yield name, weight if adapter is None else adapter.apply(name, weight)


def file_tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """The tensors of one safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            yield name, file.get_tensor(name)
