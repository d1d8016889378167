"""Model folders as people have them, which do not fit the run or the machine: changes to a tiny Qwen3."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lab.tiny_qwen3 import CHATML
from support.tiny_models import TinyModel

NO_SYSTEM = (
    "{%- for m in messages -%}{%- if m['role'] == 'system' -%}{{ raise_exception('System role not supported') }}"
    "{%- endif -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif -%}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
DROPS_SYSTEM = CHATML.replace("{%- for m in messages -%}", "{%- for m in messages if m['role'] != 'system' -%}")
OPENS_THOUGHT = CHATML.replace("assistant\n", "assistant\n<think>\n")
THINKS_BY_DEFAULT = CHATML.replace(
    "{{ '<|im_start|>assistant\n' }}",
    "{{ '<|im_start|>assistant\n' }}{%- if enable_thinking is defined and not enable_thinking -%}"
    "{{ '<think>\n\n</think>\n\n' }}{%- endif -%}",
)

_WINDOW: Final = {"head_dim": 32, "max_position_embeddings": 512, "original_max_position_embeddings": 512}

Change = Callable[[Path], None]


def set_json(name: str, **fields: Any) -> Change:
    """Set fields of a JSON file; None removes one."""

    def change(folder: Path) -> None:
        path = folder / name
        data = json.loads(path.read_text()) if path.exists() else {}
        data = {key: value for key, value in {**data, **fields}.items() if value is not None}
        path.write_text(json.dumps(data))

    return change


def set_template(template: str) -> Change:
    """Another chat template."""

    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(template)

    return change


def add_tokens(*tokens: str, special: bool = False, template: str = CHATML) -> Change:
    """Tokens that the tokenizer gets and the embedding does not."""

    def change(folder: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(list(tokens), special_tokens=special)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)

    return change


def store_as(change_tensor: Callable[[str, Any], dict[str, Any]]) -> Change:
    """The weights, each tensor as `change_tensor(name, tensor)` gives it."""

    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors: dict[str, Any] = {}
        for name, tensor in load_file(folder / "model.safetensors").items():
            tensors |= change_tensor(name, tensor)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def as_fp8(name: str, tensor: Any) -> dict[str, Any]:
    """Block-wise FP8, as DeepSeek stores it."""
    import torch

    if not name.endswith("_proj.weight"):
        return {name: tensor}
    return {name: tensor.to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.ones(1, 1)}


def as_int8(name: str, tensor: Any) -> dict[str, Any]:
    """Int8 with a scale a row, as compressed-tensors stores it."""
    import torch

    if not name.endswith("_proj.weight"):
        return {name: tensor}
    return {name: tensor.to(torch.int8), f"{name}_scale": torch.ones(len(tensor), 1)}


def as_gptq(name: str, tensor: Any) -> dict[str, Any]:
    """Packed 4-bit integers, as GPTQ stores them."""
    import torch

    if not name.endswith("_proj.weight"):
        return {name: tensor}
    stem = name.removesuffix("weight")
    return {f"{stem}qweight": torch.zeros(4, 4, dtype=torch.int32), f"{stem}scales": torch.ones(1, 4)}


def bare_names(name: str, tensor: Any) -> dict[str, Any]:
    """Names without the prefix, as when the bare decoder is saved."""
    return {name.removeprefix("model."): tensor}


def cut_embedding(name: str, tensor: Any) -> dict[str, Any]:
    """An embedding that is smaller than config.json says."""
    return {name: tensor[:-3].clone() if name == "model.embed_tokens.weight" else tensor}


def leave_an_adapter(folder: Path) -> None:
    """The adapter of the training that made the model, left beside it."""
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    (folder / "adapter_model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())


def write_tiny_phi3(folder: Path) -> Path:
    """A random Phi3: one projection for queries, keys and values, and one for gate and up."""
    from transformers import AutoTokenizer

    return TinyModel("Phi3", _WINDOW).write(folder, AutoTokenizer.from_pretrained(folder))


def map_to_own_code(folder: Path) -> None:
    """The `auto_map` that a repository has kept from the time before transformers had its architecture."""
    set_json(
        "config.json",
        auto_map={
            "AutoConfig": "configuration_phi3.Phi3Config",
            "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        },
    )(folder)


def break_weights(folder: Path) -> None:
    """NaN in the final norm, as after weights that were damaged or trained until they overflowed."""
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], float("nan"))
    save_file(tensors, path, metadata={"format": "pt"})
