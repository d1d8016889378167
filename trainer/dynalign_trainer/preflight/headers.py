"""Names, shapes and number formats of a model's tensors, from the headers of its safetensors files."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dynalign_contract.errors import BadInputError

_LONGEST_HEADER: Final = 100_000_000
"""Bytes of a header that safetensors itself accepts."""


@dataclass(frozen=True)
class Tensor:
    """What a header says of one tensor."""

    format: str
    """`BF16`, `F32`, ..."""
    shape: tuple[int, ...]


def read_headers(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """All tensors of these files. Raises BadInputError naming a file that is damaged or was cut short."""
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors |= read_header(folder / name)
    return tensors


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, which must be exactly as long as its header says. Raises BadInputError."""
    damaged = BadInputError(f"{path} is damaged or was cut short. Fetch the model again.")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
                raise damaged
            header = json.loads(file.read(length))
        found = {name: value for name, value in header.items() if name != "__metadata__"}
        end = max((value["data_offsets"][1] for value in found.values()), default=0)
        tensors = {name: Tensor(str(value["dtype"]), tuple(map(int, value["shape"]))) for name, value in found.items()}
    except OSError as error:
        raise BadInputError(f"{path} cannot be read ({error.strerror}). Fetch the model again.") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise damaged from error
    if end == 0 or size != 8 + length + end:
        raise damaged
    return tensors
