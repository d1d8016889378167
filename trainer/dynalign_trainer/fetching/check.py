"""What makes a folder a model that can be aligned. Only headers are read, never the weights themselves."""

import json
import math
from pathlib import Path
from typing import Final

from dynalign_contract.errors import BadInputError
from dynalign_trainer.model_files import INDEX, read_index, read_model_files
from dynalign_trainer.model_folder import load_tokenizer, read_json

_VOCABULARIES: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")


def check_model(folder: Path) -> int:
    """Check a model folder and return its number of parameters.

    Raises BadInputError naming the file: what `check_metadata` refuses, and weights that are missing or cut short.
    """
    check_metadata(folder)
    return _check_tensors(folder)


def check_metadata(folder: Path) -> None:
    """Check all but the weights: enough to know whether they are worth a download.

    Raises BadInputError naming the file: no causal language model, code to be trusted, no tokenizer, no chat template,
    no end-of-sequence token.
    """
    _check_config(folder / "config.json")
    _check_tokenizer_files(folder)
    if load_tokenizer(folder).eos_token_id is None:
        raise BadInputError(
            f"the tokenizer in {folder} has no end-of-sequence token. Set eos_token in tokenizer_config.json."
        )


def _check_config(path: Path) -> None:
    config = read_json(path)
    if "auto_map" in config:
        raise BadInputError(
            f"{path} asks for code of its own (auto_map), which dynalign never runs. "
            "Name a model whose architecture is part of transformers."
        )
    architectures = config.get("architectures") or []
    if not any(
        str(name).endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")) for name in architectures
    ):
        raise BadInputError(f"{path} names the architectures {architectures}; a causal language model is needed.")


def _check_tokenizer_files(folder: Path) -> None:
    """transformers makes up an empty tokenizer where the vocabulary is missing, so the files are looked for first."""
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        raise BadInputError(
            f"{folder} has no tokenizer: none of {', '.join(_VOCABULARIES)} is there. "
            "Name a complete model in spec.model.uri."
        )


def _check_tensors(folder: Path) -> int:
    """Check every weight file that is part of the model; returns the number of parameters."""
    files = read_model_files(folder)
    present = {name: _read_shapes(folder / name) for name in files.weights}
    index = folder / INDEX
    for tensor, name in read_index(index).items() if files.index else ():
        if tensor not in present[name]:
            raise BadInputError(f"{index} names the tensor {tensor} in {name}, which is not there. Fetch {name} again.")
    return sum(math.prod(shape) for shapes in present.values() for shape in shapes.values())


def _read_shapes(path: Path) -> dict[str, list[int]]:
    """Tensor names and shapes from a safetensors header; the file must be exactly as long as the header says."""
    damaged = BadInputError(f"{path} is damaged or was cut short. Fetch the model again.")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if not 2 <= length <= size - 8:
            raise damaged
        try:
            header = json.loads(file.read(length))
            tensors = {name: value for name, value in header.items() if name != "__metadata__"}
            end = max((value["data_offsets"][1] for value in tensors.values()), default=0)
            shapes = {name: list(map(int, value["shape"])) for name, value in tensors.items()}
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
            raise damaged from error
    if end == 0 or size != 8 + length + end:
        raise damaged
    return shapes
