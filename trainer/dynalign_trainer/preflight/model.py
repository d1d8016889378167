"""What makes a folder a model that can be aligned. Only headers are read, never the weights themselves."""

import math
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.files import INDEX, read_index, read_model_files, read_tensor_files
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.preflight.architecture import check_architecture
from dynalign_trainer.preflight.headers import read_header
from dynalign_trainer.preflight.tokens import check_vocabulary

_VOCABULARIES: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")


def check_model(folder: Path) -> int:
    """Check a model folder and return its number of parameters.

    Raises BadInputError naming the file: no causal language model that transformers itself knows, no tokenizer, no chat
    template, no end-of-sequence token, weights that are missing or cut short.
    """
    check_architecture(folder, str(folder))
    check_tokenizer(folder)
    return _check_tensors(folder)


def check_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer. Raises BadInputError naming what it lacks: files, chat template, end of sequence."""
    _check_tokenizer_files(folder)
    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise BadInputError(
            f"the tokenizer in {folder} has no end-of-sequence token. Set eos_token in tokenizer_config.json."
        )
    check_vocabulary(tokenizer, str(folder))
    return tokenizer


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
    present = {name: read_header(folder / name) for name in files.weights}
    read_tensor_files(folder)  # a tensor in two files is another, depending on who reads it
    index = folder / INDEX
    for tensor, name in read_index(index).items() if files.index else ():
        if tensor not in present[name]:
            raise BadInputError(f"{index} names the tensor {tensor} in {name}, which is not there. Fetch {name} again.")
    return sum(math.prod(tensor.shape) for tensors in present.values() for tensor in tensors.values())
