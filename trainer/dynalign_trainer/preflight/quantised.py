"""Quantised weights: neither training nor merging reads them, so they are refused with what to use instead."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.folder import read_json

_SETTINGS: Final = ("quantization_config", "compression_config")
_FILES: Final = ("hf_quant_config.json", "quantize_config.json", "quant_config.json", "quantization_config.json")
"""Files in which ModelOpt, GPTQ and AWQ say how they stored the weights, where config.json does not."""
_FORMATS: Final = frozenset(
    {"I8", "U8", "I4", "U4", "F4", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4_E2M1"}
)
"""Number formats of safetensors in which only quantised weights are stored."""
_TENSORS: Final = (
    *(".qweight", ".qzeros", ".g_idx", ".absmax", ".quant_map", ".SCB", ".weight_packed", ".weight_scale"),
    *("_scale_inv", ".weight_format"),
)
_MASKS: Final = (".attn.bias", ".attention.bias", ".masked_bias")
"""Masks that older models store as bytes."""
_SUFFIX: Final = re.compile(
    r"[-_.](unsloth-bnb-4bit|bnb[-_]?[48]bit|[48]-?bits?|awq|gptq|fp8|nvfp4|mxfp4|int[48]|w[48]a(8|16)|quantized|hqq|aqlm)"
    r"(?=$|[-_.@])",
    re.IGNORECASE,
)


def check_quantised_settings(folder: Path, uri: str) -> None:
    """Look into `config.json` and for the files that quantisers write. Raises BadInputError naming the method."""
    config = read_json(folder / "config.json")
    for part in (config, config.get("text_config"), config.get("llm_config")):
        for name in _SETTINGS:
            settings = part.get(name) if isinstance(part, dict) else None
            if isinstance(settings, dict) and settings:
                method = settings.get("quant_method") or settings.get("format") or settings.get("quant_algo")
                raise _refuse(f"{folder / 'config.json'} has a {name}", method, uri)
    check_quantised_names([path.name for path in folder.iterdir()], str(folder), uri)


def check_quantised_names(names: Iterable[str], where: str, uri: str) -> None:
    """Look at the names of files, of which a hub tells before anything is downloaded. Raises BadInputError."""
    if found := sorted(set(names) & set(_FILES)):
        raise _refuse(f"{where} holds {found[0]}", None, uri)


def check_quantised_tensors(formats: Mapping[str, str], where: str, uri: str) -> None:
    """Look at the weights: name of a tensor -> safetensors' name of its number format. Raises BadInputError."""
    for name, code in sorted(formats.items()):
        if name.endswith(_TENSORS) or (code in _FORMATS and not name.endswith(_MASKS)):
            raise _refuse(f"{where} stores {name} as {code}", None, uri)


def _refuse(what: str, method: Any, uri: str) -> BadInputError:
    plain = _SUFFIX.sub("", uri)
    guess = f", perhaps {plain}" if plain != uri and uri.startswith("hf://") else ""
    return BadInputError(
        f"the weights are quantised: {what}{f' ({method})' if method else ''}. Quantised weights can be neither "
        f"trained nor merged. Name the model in BFloat16 or Float32 that they were made from in spec.model.uri{guess}; "
        "or load them with transformers, call dequantize() and save the result."
    )
