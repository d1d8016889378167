"""Checkpoints as quantisers publish them, made from random models of two layers, each with what its numbers mean.

Each quantiser takes the name and the weight of a tensor and gives the stored tensors and the weight that these stand
for, by the format's own formula in float64.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from lab.byte_tokenizer import write_byte_tokenizer
from lab.tiny_qwen3 import CHATML
from support.tiny_models import GPT_OSS, TinyModel

Tensors = dict[str, torch.Tensor]
Quantise = Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor]]

_E4M3: Final = torch.float8_e4m3fn
_MOST: Final = 448.0
_FP4: Final = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
_AWQ_ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)
_MARKS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_NAMED: Final = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": "<|im_start|>"}

RAGGED: Final = TinyModel("Qwen3", {"hidden_size": 192, "intermediate_size": 320, "head_dim": 80})
"""Sizes that blocks of 128 do not divide."""
EVEN: Final = TinyModel(
    "Qwen3", {"hidden_size": 256, "intermediate_size": 384, "head_dim": 64, "num_key_value_heads": 4}
)
"""Sizes that blocks of 128 divide."""
EXPERTS: Final = GPT_OSS.changed(hidden_size=64, intermediate_size=96, head_dim=32)


def mxfp4(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Blocks of 32 numbers of four bits with a power of two each, two numbers a byte, as gpt-oss has its experts."""
    experts, columns, rows = weight.shape
    groups = weight.double().transpose(1, 2).reshape(experts, rows, columns // 32, 32)
    exponents = torch.ceil(torch.log2(groups.abs().amax(-1) / 6))
    scaled = groups / torch.exp2(exponents)[..., None]
    codes = (scaled[..., None] - _FP4.double()).abs().argmin(-1)
    meant = (_FP4.double()[codes] * torch.exp2(exponents)[..., None]).reshape(experts, rows, columns).transpose(1, 2)
    blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
    return {f"{name}_blocks": blocks, f"{name}_scales": (exponents + 127).to(torch.uint8)}, meant


def fp8_blocks(ending: str = "_scale_inv") -> Quantise:
    """A scale for each block of 128 x 128, as DeepSeek and Qwen publish theirs."""

    def quantise(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        rows, columns = weight.shape
        scale = torch.stack(
            [
                torch.stack([weight[i : i + 128, j : j + 128].abs().amax() / _MOST for j in range(0, columns, 128)])
                for i in range(0, rows, 128)
            ]
        ).float()
        wide = scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
        numbers = (weight.float() / wide).to(_E4M3)
        return {name: numbers, f"{name}{ending}": scale}, numbers.double() * wide.double()

    return quantise


def fp8_tensor(ending: str, activation: str) -> Quantise:
    """One scale for the whole tensor, and one for the activations that it meets."""

    def quantise(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        scale = weight.abs().amax().float() / _MOST
        numbers = (weight.float() / scale).to(_E4M3)
        stored = {name: numbers, f"{name}{ending}": scale, name.replace("weight", activation): torch.tensor(0.5)}
        return stored, numbers.double() * scale.double()

    return quantise


def rows_of(kind: torch.dtype, most: float) -> Quantise:
    """One scale for each row, as compressed-tensors has its FP8 and int8."""

    def quantise(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        scale = (weight.float().abs().amax(1, keepdim=True) / most).bfloat16()
        scaled = weight.float() / scale.float()
        numbers = (scaled.round() if kind is torch.int8 else scaled).clamp(-most, most).to(kind)
        return {name: numbers, f"{name}_scale": scale}, numbers.double() * scale.double()

    return quantise


def packed(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Four bits with a scale for 32 columns, eight numbers in 32 bits, as llm-compressor writes GPTQ and AWQ."""
    rows, columns = weight.shape
    groups = weight.float().reshape(rows, columns // 32, 32)
    scale = (groups.abs().amax(-1) / 7).bfloat16()
    numbers = (groups / scale.float()[..., None]).round().clamp(-8, 7)
    meant = (numbers.double() * scale.double()[..., None]).reshape(rows, columns)
    codes = (numbers.reshape(rows, columns // 8, 8) + 8).long()
    words = (codes << torch.arange(0, 32, 4)).sum(-1)
    stem = name.removesuffix("weight")
    return {
        f"{stem}weight_packed": _signed(words),
        f"{stem}weight_scale": scale,
        f"{stem}weight_shape": torch.tensor([rows, columns]),
    }, meant


def awq(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Four bits with a zero and a scale for 32 inputs, outputs packed in AWQ's own order."""
    rows, columns = weight.shape
    groups = weight.float().reshape(rows, columns // 32, 32)
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / 15).half()
    zero = (-low / scale.float()).round().clamp(0, 15)
    numbers = (groups / scale.float()[..., None] + zero[..., None]).round().clamp(0, 15)
    meant = ((numbers - zero[..., None]).double() * scale.double()[..., None]).reshape(rows, columns)
    stem = name.removesuffix("weight")
    return {
        f"{stem}qweight": _awq_words(numbers.reshape(rows, columns).T),
        f"{stem}qzeros": _awq_words(zero.T),
        f"{stem}scales": scale.T.contiguous(),
    }, meant


def gptq(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """The tensors of a GPTQ checkpoint, without numbers in them: nothing converts it."""
    stem = name.removesuffix("weight")
    words = torch.zeros(weight.shape[1] // 8, weight.shape[0], dtype=torch.int32)
    return {f"{stem}qweight": words, f"{stem}scales": torch.ones(1, weight.shape[0]).half()}, weight.double()


def nf4(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """The tensors of a bitsandbytes checkpoint, without numbers in them: nothing converts it."""
    stored = torch.zeros(weight.numel() // 2, 1, dtype=torch.uint8)
    return {name: stored, f"{name}.absmax": torch.ones(weight.numel() // 64 + 1)}, weight.double()


def _awq_words(codes: torch.Tensor) -> torch.Tensor:
    ordered = codes.long().reshape(len(codes), -1, 8)[..., list(_AWQ_ORDER)]
    return _signed((ordered << torch.arange(0, 32, 4)).sum(-1))


def _signed(words: torch.Tensor) -> torch.Tensor:
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


_TOKENS: Final = {"num_bits": 8, "symmetric": True, "strategy": "token", "dynamic": True}


def compressed_tensors(
    kind: str, bits: int, strategy: str, layout: str, *, activations: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The settings that llm-compressor writes."""
    weights = {"num_bits": bits, "type": kind, "symmetric": True, "strategy": strategy, "dynamic": False, **more}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": activations}},
    }


@dataclass(frozen=True)
class Quantiser:
    """How weights are quantised, and what `config.json` says of that."""

    quantise: Quantise
    settings: Mapping[str, Any]
    endings: tuple[str, ...] = ("_proj.weight",)
    """Endings of the names of weights that are quantised."""
    files: Mapping[str, Any] = field(default_factory=dict)
    """Further JSON files that the quantiser leaves."""

    @property
    def method(self) -> str:
        """Its name in `config.json`."""
        return str(self.settings["quant_method"])

    def change(self, folder: Path) -> Tensors:
        """Quantise the model in a folder; returns every tensor that a copy should hold, in float64."""
        stored: Tensors = {}
        meant: Tensors = {}
        for name, full in load_file(folder / "model.safetensors").items():
            weight = full.bfloat16()
            if name.endswith(self.endings):
                numbers, meant[name] = self.quantise(name, weight)
                stored |= numbers
            else:
                stored[name], meant[name] = weight, weight.double()
        whole = {name: tensor.contiguous() for name, tensor in stored.items()}
        save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": dict(self.settings)}))
        for name, content in self.files.items():
            (folder / name).write_text(json.dumps(content))
        return meant


@dataclass(frozen=True)
class Checkpoint:
    """A model, and how its weights are quantised."""

    model: TinyModel
    quantiser: Quantiser

    def write(self, folder: Path) -> tuple[Path, Tensors]:
        """Write the checkpoint; returns the folder, and every tensor that a copy should hold, in float64."""
        tokenizer = write_byte_tokenizer(folder, CHATML, marks=_MARKS, named=_NAMED)
        self.model.write(folder, tokenizer)
        (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "do_sample": True}))
        return folder, self.quantiser.change(folder)


_FP8_DYNAMIC: Final = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
_FP8_STATIC: Final = {"quant_method": "fp8", "activation_scheme": "static"}
_AWQ: Final = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}

MXFP4: Final = Quantiser(mxfp4, {"quant_method": "mxfp4"}, ("experts.gate_up_proj", "experts.down_proj"))
FP8: Final = Quantiser(fp8_blocks(), _FP8_DYNAMIC)
FP8_TENSOR: Final = Quantiser(fp8_tensor("_scale_inv", "activation_scale"), {**_FP8_STATIC, "weight_block_size": None})
AUTO_FP8: Final = Quantiser(fp8_tensor("_scale", "input_scale"), _FP8_STATIC)
FP8_DYNAMIC: Final = Quantiser(
    rows_of(_E4M3, _MOST),
    compressed_tensors("float", 8, "channel", "float-quantized", activations={"type": "float", **_TOKENS}),
)
FP8_BLOCK: Final = Quantiser(
    fp8_blocks("_scale"),
    compressed_tensors("float", 8, "block", "float-quantized", block_structure=[128, 128]),
)
W8A8: Final = Quantiser(
    rows_of(torch.int8, 127),
    compressed_tensors("int", 8, "channel", "int-quantized", activations={"type": "int", **_TOKENS}),
)
W8A16: Final = Quantiser(rows_of(torch.int8, 127), compressed_tensors("int", 8, "channel", "naive-quantized"))
W4A16: Final = Quantiser(packed, compressed_tensors("int", 4, "group", "pack-quantized", group_size=32))
AWQ: Final = Quantiser(
    awq, _AWQ, files={"quant_config.json": {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"}}
)
GPTQ: Final = Quantiser(gptq, {"quant_method": "gptq", "bits": 4, "group_size": 32})
BITSANDBYTES: Final = Quantiser(nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True})

CHECKPOINTS: Final[Mapping[str, Checkpoint]] = {
    "mxfp4": Checkpoint(EXPERTS, MXFP4),
    "fp8-blocks": Checkpoint(EVEN, FP8),
    "fp8-blocks-at-edges": Checkpoint(RAGGED, FP8),
    "fp8-tensor": Checkpoint(EVEN, FP8_TENSOR),
    "fp8-tensor-of-autofp8": Checkpoint(EVEN, AUTO_FP8),
    "compressed-fp8-rows": Checkpoint(RAGGED, FP8_DYNAMIC),
    "compressed-fp8-blocks-at-edges": Checkpoint(RAGGED, FP8_BLOCK),
    "compressed-int8-rows": Checkpoint(RAGGED, W8A8),
    "compressed-int8-rows-of-weights-alone": Checkpoint(RAGGED, W8A16),
    "compressed-int4-packed": Checkpoint(RAGGED, W4A16),
    "awq": Checkpoint(RAGGED, AWQ),
}
"""By name: every kind of checkpoint that fetch converts."""
