"""What a copy of quantised weights in BFloat16 would hold, from names and headers alone."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from dynalign_trainer.preflight.headers import Tensor


class Method(StrEnum):
    """Ways of quantising that are converted, by their names in `quantization_config.quant_method`."""

    MXFP4 = "mxfp4"
    FP8 = "fp8"
    COMPRESSED_TENSORS = "compressed-tensors"
    AWQ = "awq"


@dataclass(frozen=True)
class _Storage:
    """How a method stores one weight: endings of the names of its tensors."""

    root: str
    weight: str
    """Ending of the weight's name in the copy."""
    partners: tuple[str, ...]
    """Endings beside the root, at least one of which is there."""


_STORAGE: Final[Mapping[Method, tuple[_Storage, ...]]] = {
    Method.MXFP4: (_Storage("_blocks", "", ("_scales",)),),
    Method.FP8: (_Storage(".weight", ".weight", (".weight_scale_inv", ".weight_scale")),),
    Method.COMPRESSED_TENSORS: (
        _Storage(
            ".weight_packed",
            ".weight",
            (".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx"),
        ),
        _Storage(".weight", ".weight", (".weight_scale", ".weight_zero_point", ".weight_g_idx")),
    ),
    Method.AWQ: (_Storage(".qweight", ".weight", (".qzeros", ".scales")),),
}
_ACTIVATIONS: Final = (
    *(".activation_scale", ".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point"),
    *(".k_scale", ".v_scale", ".q_scale", ".k_zero_point", ".v_zero_point"),
)
"""Endings of tensors by which engines quantise activations and key-value caches; the copy leaves them out."""
_PLAIN: Final = frozenset({"BF16", "F16", "F32", "F64"})
_AWQ_NUMBERS: Final = 8
"""Weights in one number of 32 bits."""
_FORMATS: Final = ("float-quantized", "int-quantized", "naive-quantized", "pack-quantized")
"""Formats of compressed-tensors that are converted."""


@dataclass(frozen=True)
class StoredWeight:
    """A weight of the copy, and the tensors of the quantised checkpoint from which it is computed."""

    name: str
    root: str
    """The tensor that holds the quantised numbers."""
    partners: tuple[str, ...]
    """Scales and the like."""


@dataclass(frozen=True)
class Conversion:
    """What becomes of the tensors of a quantised checkpoint."""

    weights: tuple[StoredWeight, ...]
    """Tensors that are computed."""
    kept: tuple[str, ...]
    """Names of tensors that the copy holds as they are."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the copy's tensors."""
        return frozenset((*self.kept, *(weight.name for weight in self.weights)))

    def shapes(self, headers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The copy's tensors, as far as the headers of the quantised checkpoint tell their shapes."""
        known = {name: headers[name] for name in self.kept}
        for weight in self.weights:
            shape = _shape(weight.root, headers[weight.root].shape)
            if shape is not None:
                known[weight.name] = Tensor("BF16", shape)
        return known


def plan_conversion(method: Method, names: Collection[str], headers: Mapping[str, Tensor] | None = None) -> Conversion:
    """Sort the tensors of a checkpoint. Without headers, every tensor with scales counts as quantised."""
    present, weights = frozenset(names), dict[str, StoredWeight]()
    for storage in _STORAGE[method]:
        for root in names:
            if not root.endswith(storage.root) or (headers is not None and _is_plain(headers[root])):
                continue
            stem = root.removesuffix(storage.root)
            partners = tuple(stem + ending for ending in storage.partners if stem + ending in present)
            if partners:
                weights[root] = StoredWeight(stem + storage.weight, root, partners)
    used = {name for weight in weights.values() for name in (weight.root, *weight.partners)}
    kept = (name for name in names if name not in used and not name.endswith(_ACTIVATIONS))
    return Conversion(tuple(weights.values()), tuple(kept))


def explain_unconverted(method: Method, settings: Mapping[str, Any]) -> str:
    """What in the settings of this method is not converted; empty when nothing stands against it."""
    match method:
        case Method.FP8:
            block = settings.get("weight_block_size")
            is_known = block is None or (isinstance(block, list) and len(block) == 2 and all(map(_is_size, block)))
            return "" if is_known else f"weight_block_size {block}"
        case Method.COMPRESSED_TENSORS:
            return _explain_compressed(settings)
        case Method.AWQ:
            bits, version = settings.get("bits", 4), str(settings.get("version", "gemm"))
            group = settings.get("group_size", 128)
            is_known = bits == 4 and version.lower() == "gemm" and _is_size(group)
            return "" if is_known else f"bits {bits}, version {version}, group_size {group}"
        case Method.MXFP4:
            return ""


def _explain_compressed(settings: Mapping[str, Any]) -> str:
    groups = _objects(settings.get("config_groups"))
    for layout in [group.get("format") or settings.get("format") for group in groups]:
        if layout not in _FORMATS:
            return f"format {layout}"
    sparsity = settings.get("sparsity_config")
    if isinstance(sparsity, dict) and sparsity.get("format", "dense") != "dense":
        return f"sparsity_config of the format {sparsity['format']}"
    if settings.get("transform_config"):
        return "transform_config"
    is_whole = groups and len(groups) == len(settings["config_groups"])
    return _explain_unread(settings) if is_whole else "config_groups that are no objects"


def _explain_unread(settings: Mapping[str, Any]) -> str:
    from compressed_tensors.quantization import QuantizationConfig

    try:
        QuantizationConfig.model_validate(settings)
    except ValueError as error:
        return f"settings that compressed-tensors does not read: {' '.join(str(error).split())[:200]}"
    return ""


def _objects(groups: Any) -> list[Mapping[str, Any]]:
    return [group for group in groups.values() if isinstance(group, dict)] if isinstance(groups, dict) else []


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_plain(tensor: Tensor) -> bool:
    return tensor.format in _PLAIN


def _shape(root: str, stored: tuple[int, ...]) -> tuple[int, ...] | None:
    """Shape of a weight that is stored so; None where the header does not tell."""
    if root.endswith("_blocks") and len(stored) == 4:
        experts, rows, blocks, pairs = stored
        return experts, blocks * pairs * 2, rows
    if root.endswith(".qweight") and len(stored) == 2:
        return stored[1] * _AWQ_NUMBERS, stored[0]
    return stored if root.endswith(".weight") else None
