"""Quantised weights: refused with what to use instead, or, where the run asks for that, found fit to be converted."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.settings import Quantized
from dynalign_trainer.models.folder import read_json
from dynalign_trainer.preflight.dequantised import Method, explain_unconverted

QUANTISER_FILES: Final = (
    *("hf_quant_config.json", "quantize_config.json", "quant_config.json", "quantization_config.json"),
)
"""Files in which ModelOpt, GPTQ and AWQ say how they stored the weights, where config.json does not."""
_SETTINGS: Final = ("quantization_config", "compression_config")
_PARTS: Final = ("text_config", "llm_config")
"""Parts of `config.json` that may hold settings as well."""
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
_CONVERTED: Final = ", ".join(Method)


@dataclass(frozen=True)
class Quantisation:
    """How a checkpoint says that its weights are quantised."""

    method: Method
    settings: Mapping[str, Any]
    """`quantization_config` of `config.json`."""


def read_quantisation(folder: Path, uri: str, wanted: Quantized) -> Quantisation | None:
    """How the weights are quantised; None where nothing says that they are.

    Looks into `config.json` and for the files that quantisers write. Raises BadInputError naming the method when such
    weights are not wanted, or cannot be converted.
    """
    config = read_json(folder / "config.json")
    for name, settings in _settings(config):
        where = f"{folder / 'config.json'} has a {name}"
        named = settings.get("quant_method") or settings.get("format") or settings.get("quant_algo")
        method = next((method for method in Method if method == named), None)
        if method is None:
            raise _refuse(where, named, uri, wanted)
        if reason := explain_unconverted(method, settings):
            raise _refuse(where, f"{method} with {reason}", uri, wanted)
        if wanted is Quantized.REFUSE:
            raise _refuse(where, method, uri, wanted, can_convert=True)
        return Quantisation(method, settings)
    if found := sorted({path.name for path in folder.iterdir()} & set(QUANTISER_FILES)):
        raise _refuse(f"{folder} holds {found[0]}", None, uri, wanted)
    return None


def without_quantisation(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` of the copy: nothing says that it is quantised, and its number format is BFloat16."""
    plain = {name: value for name, value in config.items() if name not in _SETTINGS}
    for part in _PARTS:
        if isinstance(plain.get(part), dict):
            plain[part] = without_quantisation(plain[part])
    named = [name for name in ("dtype", "torch_dtype") if name in plain]
    return plain | dict.fromkeys(named or ["dtype"], "bfloat16")


def check_quantised_tensors(
    formats: Mapping[str, str], where: str, uri: str, wanted: Quantized = Quantized.REFUSE
) -> None:
    """Look at the weights: name of a tensor -> safetensors' name of its number format. Raises BadInputError."""
    for name, code in sorted(formats.items()):
        if name.endswith(_TENSORS) or (code in _FORMATS and not name.endswith(_MASKS)):
            raise _refuse(f"{where} stores {name} as {code}", None, uri, wanted)


def _settings(config: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    for part in (config, *(config.get(name) for name in _PARTS)):
        for name in _SETTINGS:
            settings = part.get(name) if isinstance(part, dict) else None
            if isinstance(settings, dict) and settings:
                yield name, settings


def _refuse(what: str, method: Any, uri: str, wanted: Quantized, *, can_convert: bool = False) -> BadInputError:
    plain = _SUFFIX.sub("", uri)
    guess = f", perhaps {plain}" if plain != uri and uri.startswith("hf://") else ""
    original = f"ame the model in BFloat16 or Float32 that they were made from in spec.model.uri{guess}"
    said = f"the weights are quantised: {what}{f' ({method})' if method else ''}."
    if can_convert:
        return BadInputError(
            f"{said} Quantised weights can be neither trained nor merged. Write spec.model.quantized: Dequantize to "
            f"have fetch convert them to BFloat16, or n{original}."
        )
    why = (
        f"spec.model.quantized: Dequantize converts {_CONVERTED} as config.json describes them, and not these."
        if wanted is Quantized.DEQUANTIZE
        else "Quantised weights can be neither trained nor merged."
    )
    return BadInputError(
        f"{said} {why} N{original}; or load them with transformers, call dequantize() and save the result."
    )
