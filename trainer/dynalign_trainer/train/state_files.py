"""Training state in files that hold data and no code: a tree of plain values and tensors, as one safetensors file.

The tensors are safetensors' own, the tree lies as JSON in the file's header and refers to them by number. A pickle,
which is what `torch.save` writes, runs whatever it was made to run when it is read; a checkpoint lies on a volume that
others may write to.
"""

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import CorruptArtifactError

STATE_FILES: Final = "*states.pt"
"""Names that DeepSpeed gives to the files of a checkpoint; what they hold is no longer PyTorch's format."""

STATE_METADATA: Final = {"dynalign.state": "1"}
"""What the header of every state file says: format and version."""

_TREE: Final = "tree"
_PLAIN: Final = (str, int, float, type(None))


def write_state(state: Any, path: Path) -> None:
    """Write a tree of dictionaries, lists, tuples, sets, plain values, dtypes and tensors.

    Raises TypeError for a value of another type.
    """
    from safetensors.torch import save_file

    tensors: list[Any] = []
    tree = json.dumps(_encode(state, tensors, {}))
    named: dict[str, Any] = {}
    used: set[int] = set()
    for number, tensor in enumerate(tensors):
        found = _alone(tensor)
        named[str(number)] = found.clone() if found.data_ptr() in used else found
        used.add(found.data_ptr())
    save_file(named, path, metadata={**STATE_METADATA, _TREE: tree})


def read_state(path: Path) -> Any:
    """Read what `write_state` has written, tensors on the CPU. Raises CorruptArtifactError for anything else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            found = file.metadata() or {}
            _check_version(found)
            tree = json.loads(found[_TREE])
            tensors = [file.get_tensor(str(number)) for number in range(len(list(file.keys())))]
        return _decode(tree, tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise _corrupt(path, error) from error


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a state file, of which only what is asked for is read."""

    file: Any
    name: str

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self._shape)

    @property
    def is_flat(self) -> bool:
        """Whether it has one dimension."""
        return len(self._shape) == 1

    @property
    def _shape(self) -> list[int]:
        found: list[int] = self.file.get_slice(self.name).get_shape()
        return found

    def read(self, start: int, stop: int) -> Any:
        """Values of a flat tensor."""
        return self.file.get_slice(self.name)[start:stop]

    def whole(self) -> Any:
        """All values, in their shape."""
        return self.file.get_tensor(self.name)


def open_state(path: Path) -> Any:
    """Read the tree of a state file, with a `StoredTensor` for each tensor. Raises CorruptArtifactError."""
    from safetensors import SafetensorError, safe_open

    try:
        file: Any = safe_open(path, framework="pt", device="cpu")
        found = file.metadata() or {}
        _check_version(found)
        tensors = [StoredTensor(file, str(number)) for number in range(len(list(file.keys())))]
        return _decode(json.loads(found[_TREE]), tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise _corrupt(path, error) from error


def check_state_file(path: Path) -> None:
    """Raise CorruptArtifactError unless the header of a file says that `write_state` wrote it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            _check_version(file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise _corrupt(path, error) from error


def _check_version(metadata: Mapping[str, str]) -> None:
    if not STATE_METADATA.items() <= metadata.items():
        raise ValueError("its header does not say so")


def _corrupt(path: Path, error: Exception) -> CorruptArtifactError:
    return CorruptArtifactError(
        f"{path} is no training state that dynalign wrote ({error}); nothing else is ever opened. Remove the folder "
        f"{path.parent} to have training go on from the checkpoint before it, or from the beginning."
    )


def _encode(value: Any, tensors: list[Any], numbers: dict[Hashable, int]) -> Any:
    """Describe a value in JSON's types; its tensors go to `tensors`, one that occurs twice (a tied head) once."""
    import torch

    if isinstance(value, torch.Tensor):
        memory = (value.data_ptr(), value.dtype, value.shape, value.stride()) if value.numel() else len(tensors)
        number = numbers.setdefault(memory, len(tensors))
        if number == len(tensors):
            tensors.append(value)
        return {"tensor": number}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {
            "map": [[_encode(key, tensors, numbers), _encode(item, tensors, numbers)] for key, item in value.items()]
        }
    for kind, name in ((torch.Size, "size"), (tuple, "tuple"), (list, "list"), (set, "set")):
        if isinstance(value, kind):
            items = sorted(value) if kind is set else value
            return {name: [_encode(item, tensors, numbers) for item in items]}
    if isinstance(value, _PLAIN):
        return value
    raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__} is no part of a training state")


def _decode(tree: Any, tensors: list[Any]) -> Any:
    import torch

    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "dtype":
            found = getattr(torch, content)
            if not isinstance(found, torch.dtype):
                raise TypeError(f"{content} is no dtype")
            return found
        case "map":
            return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
    items = [_decode(item, tensors) for item in content]
    return {"list": list, "tuple": tuple, "set": set, "size": torch.Size}[kind](items)


def _alone(tensor: Any) -> Any:
    """The tensor on the CPU in memory of its own: safetensors refuses tensors that share theirs."""
    found = tensor.detach().cpu()
    owns = found.untyped_storage().nbytes() == found.numel() * found.element_size()
    return found.contiguous() if owns and found.is_contiguous() else found.contiguous().clone()
