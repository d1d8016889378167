"""The export stage: merge the chosen adapter into the base model and write a folder that anyone can load."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

from dynalign_contract.config import ExportParams
from dynalign_contract.errors import BadInputError
from dynalign_contract.files import write_bytes
from dynalign_trainer.context import StageContext, StageOutput
from dynalign_trainer.fetching.check import check_model
from dynalign_trainer.model_card import build_model_card

_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def run(context: StageContext[ExportParams]) -> StageOutput:
    """Write safetensors weights, configuration, tokenizer and a model card. Inputs: model, the policy's adapter."""
    params, base, target = context.params, context.input("model"), context.folder
    for leftover in target.glob("[!.]*"):
        leftover.unlink()
    adapter = None if params.policy.adapter is None else context.input(params.policy.version)
    change = _write_weights(base, adapter, target)
    for name in _TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, target / name)
    write_bytes(target / "README.md", build_model_card(context.config.run, params).encode())
    parameters = check_model(target)
    files = [path for path in sorted(target.iterdir()) if not path.name.startswith(".")]
    return StageOutput(
        files={path.name: 0 for path in files},
        metrics={
            "parameters": parameters,
            "bytes": sum(path.stat().st_size for path in files),
            "relative_change": change,
        },
    )


def _write_weights(base: Path, adapter: Path | None, target: Path) -> float:
    """Merge in float32, save in the base model's own type; returns ‖W' - W‖ / ‖W‖ over all weights.

    LoRA's update is small beside the weights, so it is added before the weights are rounded, not after.
    """
    import torch
    from transformers import AutoModelForCausalLM

    stored = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
    dtype = stored.dtype
    model: Any = stored.to(torch.float32)
    change = 0.0
    if adapter is not None:
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        model = _merge(model, adapter)
        with torch.no_grad():
            moved = sum(((w - before[name]).double().norm() ** 2).item() for name, w in model.named_parameters())
            size = sum((w.double().norm() ** 2).item() for w in before.values())
        change = (moved / size) ** 0.5
    model.to(dtype).save_pretrained(target)
    _forget_paths(target / "config.json")
    return float(change)


def _merge(model: Any, adapter: Path) -> Any:
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BadInputError(
            f"the adapter in {adapter} does not fit the base model ({error}). "
            "Remove the folder to have its iteration's training run again."
        ) from error


def _forget_paths(path: Path) -> None:
    config = json.loads(path.read_bytes())
    config.pop("_name_or_path", None)
    write_bytes(path, json.dumps(config, indent=2).encode())
