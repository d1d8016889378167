"""The fetch stage as a preflight: a model folder, rows of prompts, and what fetch says of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynalign_contract.config import FetchParams, StageConfig
from dynalign_contract.preflight import Preflight
from dynalign_contract.result import StageResult
from dynalign_contract.settings import (
    DEFAULT_CHAT,
    ChatSettings,
    EngineSettings,
    LoraSettings,
    PromptSettings,
    Quantized,
    SuppliedPrompts,
    TrainingMethod,
    TrainingSettings,
)
from dynalign_trainer.runtime.lifecycle import Place, run_stage


def chat(question: str, system: str = "") -> dict[str, Any]:
    turns = [{"role": "system", "content": system}] if system else []
    return {"messages": [*turns, {"role": "user", "content": question}]}


def rows(folder: Path, found: Sequence[Any]) -> str:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in found))
    return str(path)


def a_preflight(
    uri: str | None = None,
    *,
    targets: Sequence[str] | None = None,
    method: str = "LoRA",
    max_tokens: int = 24,
    **prompts: Any,
) -> Preflight:
    settings: dict[str, Any] = {"per_iteration": 4, "held_out": 1, "min_characters": 5, **prompts}
    if uri is not None:
        settings["supplied"] = SuppliedPrompts(uri=uri)
    lora = None if targets is None else LoraSettings(target_modules=tuple(targets))
    training = TrainingSettings(method=TrainingMethod(method), lora=lora)
    return Preflight(prompts=PromptSettings(**settings), training=training, max_tokens=max_tokens)


def fetch(
    model: Path,
    preflight: Preflight,
    root: Path,
    engine: EngineSettings | None = None,
    chat: ChatSettings = DEFAULT_CHAT,
    *,
    quantized: Quantized = Quantized.REFUSE,
) -> StageResult:
    root.mkdir(exist_ok=True)
    params = FetchParams(uri=str(model), preflight=preflight, quantized=quantized)
    config = StageConfig(run="r", params=params, engine=engine or EngineSettings(), chat=chat)
    (root / "stage.json").write_text(config.to_json())
    run_stage(root / "stage.json", root, root / "result", Place())
    return StageResult.decode((root / "result").read_bytes())


def refusal(result: StageResult, root: Path) -> str:
    """The message of a stage that refused and brought no weights."""
    assert result.error is not None, result
    assert result.exit_code in (10, 11)
    assert not list((root / "model").glob("*.safetensors"))
    assert not (root / "model" / "manifest.json").exists()
    return result.error.message
