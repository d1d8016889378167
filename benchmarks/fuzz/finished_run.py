"""A finished run's artifacts and checkpoints, small, made without an engine by what stages write with."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from safetensors.numpy import save_file

from dynalign_contract.files import atomic_path, write_bytes
from dynalign_contract.layout import (
    CANARIES_FILE,
    HELD_OUT_FILE,
    PROMPTS_FILE,
    YIELD_FILE,
    RunLayout,
    part_name,
    shard_folder,
    stage_folder,
)
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.records import (
    CANARY,
    JUDGEMENT,
    PROMPT,
    ROLLOUT,
    JudgementRow,
    PromptRow,
    RolloutRow,
    Table,
    write_rows,
)
from dynalign_contract.result import ArtifactRef, Metric, combine_artifacts
from dynalign_contract.settings import TrainingSettings
from dynalign_contract.stages import Stage
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.train.checkpoints import checkpoint_folder, seal_checkpoint
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.state_files import STATE_METADATA

_SHARDS: Final = 2
_DIGEST: Final = "sha256:" + "0" * 64
R = TypeVar("R")
_MESSAGES: Final = [Message(role="user", content="How could a village share its tools?")]
_MODEL: Final = {
    "config.json": {"architectures": ["Qwen3ForCausalLM"], "vocab_size": 8},
    "tokenizer.json": {"model": {"vocab": {"a": 0, "b": 1}}},
    "tokenizer_config.json": {"eos_token": "b"},
    "additional_chat_templates/tools.jinja": "{{ messages }}",
}


@dataclass(frozen=True)
class Finished:
    """A run that has finished, and what its status says of it."""

    root: Path
    artifacts: tuple[ArtifactRef, ...]
    checkpoints: Path
    """Folder of two checkpoints, relative to the root."""


def write_finished_run(root: Path) -> Finished:
    """Write a run of one iteration with two shards, whole and in order."""
    artifacts = (
        _model(root, Stage.FETCH),
        _prompts(root),
        _sharded(root, Stage.GENERATE, _rollout, ROLLOUT),
        _sharded(root, Stage.JUDGE, _judgement, JUDGEMENT),
        _policy(root),
        _model(root, Stage.EXPORT),
    )
    return Finished(root, artifacts, _checkpoints(root).relative_to(root))


def _model(root: Path, stage: Stage) -> ArtifactRef:
    path = stage_folder(stage)
    for name, content in _MODEL.items():
        write_bytes(root / path / name, json.dumps(content).encode())
    _save_tensors(root / path / "model.safetensors", {"model.embed_tokens.weight": np.eye(8, dtype=np.float32)})
    return _describe(root, path, stage, {**dict.fromkeys(_MODEL, 0), "model.safetensors": 0})


def _policy(root: Path) -> ArtifactRef:
    path = stage_folder(Stage.TRAIN, 0)
    write_bytes(root / path / "adapter_config.json", json.dumps({"r": 2, "lora_alpha": 4}).encode())
    _save_tensors(root / path / "adapter_model.safetensors", {"lora_A": np.ones((2, 8), dtype=np.float32)})
    return _describe(root, path, Stage.TRAIN, {"adapter_config.json": 0, "adapter_model.safetensors": 0})


def _prompts(root: Path) -> ArtifactRef:
    path = stage_folder(Stage.PROMPTS, 0)
    rows = {PROMPTS_FILE: [_prompt(i) for i in range(4)], HELD_OUT_FILE: [_prompt(9)]}
    for name, contents in rows.items():
        write_rows(root / path / name, contents, PROMPT)
    write_bytes(root / path / YIELD_FILE, b'{"sets": []}')
    return _describe(root, path, Stage.PROMPTS, {name: len(found) for name, found in rows.items()} | {YIELD_FILE: 0})


def _sharded(root: Path, stage: Stage, row: Callable[[int], R], table: Table[R]) -> ArtifactRef:
    path = stage_folder(stage, 0)
    shards = []
    for index in range(_SHARDS):
        folder = shard_folder(path, index, _SHARDS)
        for part in range(2):
            write_rows(root / folder / part_name(part), [row(4 * index + 2 * part + k) for k in range(2)], table)
        files = {part_name(part): 2 for part in range(2)}
        if stage is Stage.JUDGE and index == 0:
            write_rows(root / folder / CANARIES_FILE, [], CANARY)
            files[CANARIES_FILE] = 0
        shards.append(_describe(root, folder, stage, files))
    return combine_artifacts(path, shards)


def _checkpoints(root: Path) -> Path:
    work = RunLayout(root).checkpoints(0)
    job = TrainJob(
        **dict.fromkeys(("model", "batch", "work", "output"), work),
        start=None,
        training=TrainingSettings(),
        temperature=1.0,
        max_tokens=8,
        group_size=4,
        iteration=0,
        config_digest=_DIGEST,
        seed=0,
    )
    for step in (1, 2):
        folder = checkpoint_folder(work, step)
        write_bytes(folder / "survey-00000.parquet", b"survey")
        state = {"0": np.full(4, step, dtype=np.float32)}
        _save_tensors(folder / "mp_rank_00_model_states.pt", state, STATE_METADATA | {"tree": '{"tensor": 0}'})
        seal_checkpoint(folder, job)
    return work


def _describe(root: Path, path: str, stage: Stage, files: Mapping[str, int]) -> ArtifactRef:
    folder = root / path
    manifest = Manifest(
        stage=stage,
        iteration=None if stage in (Stage.FETCH, Stage.EXPORT) else 0,
        config_digest=_DIGEST,
        files=tuple(describe_file(folder, name, rows) for name, rows in sorted(files.items())),
        metrics=(Metric(name="reward", value=0.625), Metric(name="undefined")),
        producers={"python": "3.11.7", "torch": "2.13.0"},
        seconds=1.25,
    )
    write_manifest(folder, manifest)
    return ArtifactRef(path=path, digest=manifest.digest)


def _save_tensors(path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _prompt(number: int) -> PromptRow:
    return {
        "prompt_id": f"p{number}",
        "messages": _MESSAGES,
        "source": "",
        "facets": {},
        "critic_score": 4.5,
        "agents": {},
        "draft_id": "",
        "draft": "",
        "draft_score": 2.0,
    }


def _rollout(number: int) -> RolloutRow:
    ids = [number, 1]
    return {
        "prompt_id": f"p{number}",
        "candidate": 0,
        "prompt_ids": ids,
        "completion_ids": ids,
        "logprobs": [-0.5, -0.25],
        "finish_reason": "stop",
        "policy": "base",
        "text": "By turns.",
        "messages": _MESSAGES,
    }


def _judgement(number: int) -> JudgementRow:
    return {
        "prompt_id": f"p{number}",
        "candidate": 0,
        "scores": [{"aspect": "power", "score": 5.0, "mass": 1.0}],
        "raw_reward": 0.5,
        "penalties": {},
        "reward": 0.5,
        "reward_error": 0.1,
        "retries": 0,
        "judge": "base",
    }
