"""What the engine must know of a model folder before it starts: weights, context window, chat template, adapters."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.model_shape import ModelShape, UnknownShapeError, shape_of
from dynalign_trainer.models.files import CONFIG, read_model_files
from dynalign_trainer.runtime.importing import importing

DEFAULT_MAX_LENGTH: Final = 4096
"""Context window where none is configured and the model's own is longer, in tokens."""

_VLLM_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM 0.31 has kernels for; `max_lora_rank` must be one of them."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that belongs to a model. Raises BadInputError naming the file."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(
            f"{path} cannot be read ({error}). A model folder needs config.json, safetensors weights and a tokenizer: "
            "name one that transformers can load in spec.model.uri."
        ) from error
    if not isinstance(data, dict):
        raise BadInputError(f"{path} holds no JSON object. Name a model folder that transformers can load.")
    return data


def check_weights(folder: Path) -> None:
    """Raise BadInputError when the folder has no safetensors weights, or does not say which files they are."""
    read_model_files(folder)


def context_window(folder: Path, wanted: int | None) -> int:
    """Context window in tokens, prompt and completion together.

    Raises BadInputError when `wanted` (`engine.maxLength`) is more than the model was made for.
    """
    config = read_json(folder / "config.json")
    text = config.get("text_config")
    own = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    if not isinstance(own, int):
        return wanted or DEFAULT_MAX_LENGTH
    if wanted is not None and wanted > own:
        raise BadInputError(
            f"engine.maxLength is {wanted}, but the model in {folder} reads at most {own} tokens "
            "(max_position_embeddings in config.json). Lower engine.maxLength."
        )
    return wanted or min(own, DEFAULT_MAX_LENGTH)


@cache
def model_shape(folder: Path) -> ModelShape | None:
    """Sizes of the model in a folder; None where its configuration does not tell them."""
    try:
        return shape_of(read_json(folder / CONFIG))
    except UnknownShapeError:
        return None


def load_tokenizer(folder: Path) -> Any:
    """The folder's Hugging Face tokenizer. Raises BadInputError when it cannot be loaded or has no chat template."""
    with importing():
        from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # damaged files raise what they like: tokenizers' Rust code a bare Exception
        raise BadInputError(
            f"the tokenizer in {folder} cannot be loaded ({' '.join(str(error).split())[:300]}). "
            "Name a complete model in spec.model.uri, with tokenizer.json or tokenizer.model."
        ) from error
    if not tokenizer.chat_template:
        raise BadInputError(
            f"the tokenizer in {folder} has no chat template, so it is not a chat model. Use an instruction-tuned "
            "model, or add a chat_template.jinja to the folder."
        )
    return tokenizer


def adapter_rank(folders: Iterable[Path]) -> int:
    """The smallest rank supported by vLLM that holds every adapter. Raises BadInputError naming the adapter's file."""
    largest = 0
    for folder in folders:
        path = folder / "adapter_config.json"
        config = read_json(path)
        rank = config.get("r")
        if config.get("peft_type") != "LORA" or not isinstance(rank, int) or not 0 < rank <= _VLLM_RANKS[-1]:
            raise BadInputError(
                f"{path} describes peft_type {config.get('peft_type')!r} of rank {rank!r}; the engine loads LoRA "
                f"adapters of rank 1 to {_VLLM_RANKS[-1]}. Set training.lora.rank accordingly and train again."
            )
        largest = max(largest, rank)
    return min(supported for supported in _VLLM_RANKS if supported >= largest)
