"""Which files of a folder or repository are a model: the one answer that every stage uses.

Weights are what transformers loads: `model.safetensors`, or the files that `model.safetensors.index.json` names, and
never more than these. The tokenizer is whatever stands beside them in a text format, because its classes name their
files as they like. The rest (other formats, second copies, records of a training) is left where it is.
"""

import fnmatch
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.layout import MANIFEST, SOURCE_FILE

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
TEMPLATES_FOLDER: Final = "additional_chat_templates"
"""Where transformers keeps chat templates beside the default one, as NAME.jinja."""

_CONFIGS: Final = (CONFIG, "generation_config.json", "*processor_config.json", "quant*_config.json")
_TOKENIZER: Final = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", f"{TEMPLATES_FOLDER}/*.jinja")
_ADAPTERS: Final = ("adapter_config.json", "adapter_model*", "adapters.safetensors", "pytorch_lora_weights.safetensors")
_OTHERS: Final = (
    *(MANIFEST, SOURCE_FILE, "*.index.json", "*.index.*.json", "params.json"),
    *("trainer_state.json", "training_args*", "*_results.json"),
    *("README*", "LICENSE*", "NOTICE*", "USE_POLICY*", "requirements*.txt"),
)
"""Files in the formats of a tokenizer that are none of its own."""


@dataclass(frozen=True)
class ModelFiles:
    """The names of a model's files, relative to its folder, each group sorted."""

    config: tuple[str, ...]
    """`config.json`, and the settings of generation, of processors, and of quantised weights."""
    tokenizer: tuple[str, ...]
    """Vocabulary, added tokens, settings, chat templates."""
    index: tuple[str, ...]
    """The index of the weights, where they lie in several files."""
    weights: tuple[str, ...]
    """Files in safetensors format that make up the weights."""
    left: tuple[str, ...]
    """Files beside these that are no part of the model."""

    @property
    def metadata(self) -> tuple[str, ...]:
        """All but the weights."""
        return tuple(sorted((*self.config, *self.tokenizer, *self.index)))

    @property
    def all(self) -> tuple[str, ...]:
        """Every file of the model."""
        return tuple(sorted((*self.metadata, *self.weights)))


def read_model_files(folder: Path) -> ModelFiles:
    """The files of the model that lies in `folder`.

    Raises BadInputError naming the file: no safetensors weights, an adapter beside them, an index that cannot be
    followed, or two answers to what the weights are.
    """
    return choose_files(list_names(folder), folder, str(folder))


def list_names(folder: Path) -> list[str]:
    """Names of the files in `folder` that can be part of a model, and of those in its folder of chat templates."""
    paths = [*folder.iterdir(), *(folder / TEMPLATES_FOLDER).glob("*")]
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file() and path.name[0] != ".")


def choose_files(names: Iterable[str], folder: Path, where: str) -> ModelFiles:
    """The model among files of these names; the index, if it is among them, lies in `folder`.

    `where` names the model in messages. Raises BadInputError as `read_model_files` does.
    """
    names = sorted(names)
    metadata = choose_metadata(names, where)
    weights = _choose_weights(names, folder, where)
    chosen = {*metadata, *weights}
    return ModelFiles(
        config=tuple(name for name in metadata if _matches(name, _CONFIGS)),
        tokenizer=tuple(name for name in metadata if name != INDEX and not _matches(name, _CONFIGS)),
        index=tuple(name for name in metadata if name == INDEX),
        weights=weights,
        left=tuple(name for name in names if name not in chosen),
    )


def choose_metadata(names: Iterable[str], where: str) -> tuple[str, ...]:
    """Names of the files of a model that are not its weights: enough to be looked at before these are fetched.

    Raises BadInputError when there are no safetensors weights, or an adapter among the files.
    """
    names = sorted(names)
    _refuse_adapter(names, where)
    if not any(fnmatch.fnmatch(name, "*.safetensors") and "/" not in name for name in names):
        others = [name for name in names if name.endswith((".bin", ".gguf", ".pt", ".pth", ".h5", ".onnx", ".msgpack"))]
        found = f" It has {', '.join(others[:3])}." if others else ""
        raise BadInputError(
            f"{where} holds no *.safetensors file.{found} Other weight formats can run code when they are loaded and "
            "are refused: name a model or revision with safetensors in spec.model.uri."
        )
    return tuple(name for name in names if _is_metadata(name))


def read_index(path: Path) -> dict[str, str]:
    """The weight map of an index: name of a tensor -> name of the file beside it that holds it.

    Raises BadInputError naming the index.
    """
    try:
        found: Any = json.loads(path.read_bytes())
        weights = dict(found["weight_map"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadInputError(
            f"{path} is not the index of safetensors weights ({type(error).__name__}: {error}): it needs a weight_map. "
            "Restore the file, or save the model again."
        ) from error
    for tensor, name in weights.items():
        if not isinstance(name, str) or not name.endswith(".safetensors") or PurePosixPath(name).name != name:
            raise BadInputError(
                f"{path} says that {tensor} lies in {name!r}; it must be a safetensors file in the same folder. "
                "Save the model again."
            )
    if not weights:
        raise BadInputError(f"{path} has an empty weight_map. Save the model again.")
    return weights


def read_tensor_files(folder: Path) -> dict[str, Path]:
    """Name of every tensor of the model in `folder` -> the file that holds it; only headers are read.

    Raises BadInputError naming the file that cannot be read, and a tensor that lies in two files.
    """
    from safetensors import SafetensorError, safe_open

    files: dict[str, Path] = {}
    for path in (folder / name for name in read_model_files(folder).weights):
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
        except (OSError, SafetensorError) as error:
            raise BadInputError(
                f"{path} cannot be read as safetensors ({error}). Restore the file, or remove its folder to have its "
                "stage run again."
            ) from error
        if twice := next((name for name in names if name in files), None):
            raise BadInputError(
                f"the tensor {twice} lies in {files[twice]} and in {path.name}, so that the weights depend on who "
                "reads them. Save the model again."
            )
        files |= dict.fromkeys(names, path)
    return files


def _choose_weights(names: list[str], folder: Path, where: str) -> tuple[str, ...]:
    if INDEX not in names:
        if WEIGHTS in names:
            return (WEIGHTS,)
        raise BadInputError(
            f"{where} has neither {WEIGHTS} nor {INDEX}, so nothing says which files are the weights; it has "
            f"{', '.join(name for name in names if name.endswith('.safetensors'))}. Save the model with transformers "
            "(save_pretrained), which writes the one or the other."
        )
    index = folder / INDEX
    weights = sorted(set(read_index(index).values()))
    is_second = WEIGHTS in names and WEIGHTS not in weights
    if missing := [name for name in weights if name not in names]:
        otherwise = f" If {WEIGHTS} is the whole model, remove the index." if is_second else ""
        raise BadInputError(
            f"{index} names {missing[0]}, which is not there ({len(missing)} of {len(weights)} files are missing). "
            f"Fetch the model again, or save it again.{otherwise}"
        )
    if is_second:
        raise BadInputError(
            f"{where} has both {WEIGHTS} and {INDEX}, which names other files: transformers reads the one, vLLM the "
            "others. Remove what is left over, the one file, or the index with its files."
        )
    return tuple(weights)


def _refuse_adapter(names: list[str], where: str) -> None:
    adapter = [name for name in names if _matches(name, _ADAPTERS) and "/" not in name]
    if not adapter:
        return
    if any(name in names for name in (WEIGHTS, INDEX)):
        raise BadInputError(
            f"{where} holds an adapter beside whole weights ({', '.join(adapter)}): it was not merged into them, or is "
            "left over from the training that made them. Merge it (PEFT: merge_and_unload) and save the result in a "
            "folder of its own, or remove these files."
        )
    raise BadInputError(
        f"{where} holds an adapter ({', '.join(adapter)}) and no whole model. Merge it into its base model (PEFT: "
        "merge_and_unload), save the result, and name that in spec.model.uri."
    )


def _is_metadata(name: str) -> bool:
    if name == INDEX or _matches(name, _CONFIGS):
        return True
    return _matches(name, _TOKENIZER) and not _matches(name, _OTHERS)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name fits a pattern; `*` does not reach into folders."""
    return any(fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)
