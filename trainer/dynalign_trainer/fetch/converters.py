"""Quantised numbers and their scales -> weights in BFloat16, by the libraries that define the formats.

compressed-tensors, which vLLM brings along, converts its own format, AWQ and FP8 by blocks; transformers converts MXFP4
in plain torch, without Triton. transformers' own way through a whole model (`dequantize=True`, then `save_pretrained`)
is not taken: ADR 10 has the reasons.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_trainer.preflight.dequantised import Method, StoredWeight
from dynalign_trainer.preflight.quantised import Quantisation

Convert = Callable[[StoredWeight, Mapping[str, Any]], Any]
"""(what to compute, tensors by name) -> the weight in BFloat16. Raises BadInputError naming the tensor."""

_BLOCK: Final = (128, 128)
"""Size of FP8 blocks where `quantization_config` does not say it, as transformers has it."""
_ROWS_AT_ONCE: Final = 1 << 20
"""Blocks of 32 numbers that transformers converts at a time: 0.2 GiB beside the result."""


def build_converter(folder: Path, found: Quantisation) -> Convert:
    """The function that converts the weights of the checkpoint in `folder`."""
    match found.method:
        case Method.MXFP4:
            convert: Convert = _from_mxfp4
        case Method.FP8:
            convert = _from_fp8(found.settings.get("weight_block_size", _BLOCK))
        case Method.COMPRESSED_TENSORS:
            convert = _from_compressed_tensors(folder, found.settings)
        case Method.AWQ:
            convert = _from_awq(found.settings)
    return _explained(convert)


def _explained(convert: Convert) -> Convert:
    """Libraries tell by their own errors what does not fit together."""

    def explained(weight: StoredWeight, tensors: Mapping[str, Any]) -> Any:
        try:
            return _checked(convert(weight, tensors))
        except (ValueError, KeyError, IndexError, AssertionError, RuntimeError) as error:
            if "memory" in str(error):  # torch's own word for too little of it, which is no fault of the checkpoint
                raise
            shapes = ", ".join(f"{name} {list(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items())
            raise BadInputError(
                f"{weight.root} cannot be converted to BFloat16 ({type(error).__name__}: {error}). Its tensors are "
                f"{shapes}: they fit neither each other nor config.json's quantization_config. Name the model in "
                "BFloat16 that the weights were made from in spec.model.uri."
            ) from error

    return explained


def _checked(result: Any) -> Any:
    import torch

    if result.dtype is not torch.bfloat16:
        raise ValueError(f"the format in config.json leaves it as {result.dtype}")
    return result.contiguous()


def _from_mxfp4(weight: StoredWeight, tensors: Mapping[str, Any]) -> Any:
    """Experts of gpt-oss: shape [experts, rows, blocks, 16] becomes [experts, 32 blocks, rows]."""
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks, scales = tensors[weight.root], tensors[weight.partners[0]]
    return convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16, rows_per_chunk=_ROWS_AT_ONCE)


def _from_fp8(block: Any) -> Convert:
    """FP8 with a scale for the tensor, for each row, or for each block."""

    def convert(weight: StoredWeight, tensors: Mapping[str, Any]) -> Any:
        import torch

        numbers, scale = tensors[weight.root], tensors[weight.partners[0]]
        if not scale.dtype.is_floating_point or numbers.dim() != 2:
            raise ValueError("scales that are no floating-point numbers, or a weight that is no matrix")
        rows = numbers.shape[0]
        if scale.numel() == 1 or tuple(scale.shape) in ((rows,), (rows, 1)):
            return (numbers.float() * scale.float().reshape(-1, 1)).to(torch.bfloat16)
        if block is None:
            raise ValueError("there are many scales, and weight_block_size says that there are no blocks")
        return _by_blocks(numbers, scale, tuple(block))

    return convert


def _grid(numbers: Any, block: tuple[int, ...]) -> tuple[int, ...]:
    """How many blocks a matrix has in each direction; those at its edges may be smaller."""
    return tuple(-(-size // of) for size, of in zip(numbers.shape, block, strict=True))


def _by_blocks(numbers: Any, scale: Any, block: tuple[int, ...]) -> Any:
    """A matrix with a scale for each block. Raises ValueError when there is another number of scales."""
    from compressed_tensors.entrypoints.convert import FP8BlockDequantizer

    grid = _grid(numbers, block)
    if tuple(scale.shape) != grid:
        raise ValueError(f"blocks of {list(block)} need scales of the shape {list(grid)}")
    name = "x.weight"
    found = FP8BlockDequantizer(weight_block_size=block).process({name: numbers, f"{name}_scale_inv": scale})
    return found[name]


def _from_compressed_tensors(folder: Path, settings: Mapping[str, Any]) -> Convert:
    """The format's own library, but for blocks: it takes those at the edges for as large as the others."""
    from compressed_tensors.config import CompressionFormat
    from compressed_tensors.entrypoints.convert import CompressedTensorsDequantizer

    dequantizer = CompressedTensorsDequantizer(folder)
    groups = dequantizer.quant_config.config_groups
    for name, scheme in groups.items():  # the library guesses the format, where the checkpoint says it
        own = settings["config_groups"][name].get("format")
        scheme.format = CompressionFormat(own or settings["format"])
    schemes = [scheme.weights for scheme in groups.values() if scheme.weights is not None]
    blocks = {tuple(weights.block_structure) for weights in schemes if weights.block_structure is not None}

    def convert(weight: StoredWeight, tensors: Mapping[str, Any]) -> Any:
        numbers, scale = tensors[weight.root], tensors[weight.partners[0]]
        for block in blocks:
            if weight.root == weight.name and tuple(scale.shape) == _grid(numbers, block):
                return _by_blocks(numbers, scale, block)
        return dequantizer.process(_in_float32(tensors))[weight.name]

    return convert


def _from_awq(settings: Mapping[str, Any]) -> Convert:
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.entrypoints.convert import AutoAWQConverter

    version = str(settings.get("version", "gemm")).lower()
    packer = AutoAWQConverter.from_autoawq_config(dict(settings) | {"version": version})
    (scheme,) = packer.create_config().config_groups.values()
    compressor = BaseCompressor.get_value_from_registry(scheme.format)

    def convert(_weight: StoredWeight, tensors: Mapping[str, Any]) -> Any:
        packer.validate(dict(tensors))
        packed = {name.rpartition(".")[2]: tensor for name, tensor in packer.process(_in_float32(tensors)).items()}
        return compressor.decompress(packed, scheme)["weight"].to(torch.bfloat16)

    return convert


def _in_float32(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors with wider scales: libraries multiply in their format, and the result is rounded once."""
    import torch

    narrow = (torch.float16, torch.bfloat16)
    return {name: tensor.float() if tensor.dtype in narrow else tensor for name, tensor in tensors.items()}
