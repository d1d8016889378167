"""Jobs of the train stage's worker, in one process and without torchrun."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from dynalign_contract.layout import BATCH_FILE
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.records import BATCH, BatchRow, write_rows
from dynalign_contract.settings import DType, LoraSettings, TrainingBackend, TrainingMethod, TrainingSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.train.job import TrainJob
from lab.processes import free_port

TINY_MODEL: Final = {
    "vocab_size": 256,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
}
"""Sizes of a Qwen3 that a CPU trains in no time, for `write_model`."""
_DIGEST: Final = "sha256:" + "0" * 64
_PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def be_the_only_rank() -> None:
    """Set what torchrun sets for one process."""
    ranks = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    os.environ.update(ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))


def write_model(folder: Path, device: str, shape: Mapping[str, int]) -> Path:
    """Write a Qwen3 with fresh weights in bfloat16 as a Hugging Face folder without a tokenizer."""
    torch.manual_seed(0)
    config = Qwen3Config(**{"max_position_embeddings": 40_960, "tie_word_embeddings": False, **shape})
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def write_batch(folder: Path, rows: Sequence[BatchRow]) -> Path:
    """Write the batch as the stage leaves it for the workers; returns its file."""
    folder.mkdir()
    write_rows(folder / BATCH_FILE, rows, BATCH)
    described = describe_file(folder, BATCH_FILE, len(rows))
    write_manifest(folder, Manifest(stage=Stage.TRAIN, iteration=0, config_digest=_DIGEST, files=(described,)))
    return folder / BATCH_FILE


def make_job(
    *,
    model: Path,
    batch: Path,
    work: Path,
    method: TrainingMethod = TrainingMethod.LORA,
    dtype: DType = DType.BFLOAT16,
    resume: Path | None = None,
    **settings: Any,
) -> TrainJob:
    """A job of the Packed backend; its policy goes to the folder `output` beside its work."""
    (output := work / "output").mkdir(parents=True)
    lora = LoraSettings(target_modules=_PROJECTIONS) if method is TrainingMethod.LORA else None
    training = TrainingSettings(backend=TrainingBackend.PACKED, method=method, lora=lora, **settings)
    facts: dict[str, Any] = {"temperature": 1.0, "max_tokens": 1024, "group_size": 4, "iteration": 0, "seed": 7}
    return TrainJob(
        model=model,
        start=None,
        batch=batch,
        work=work,
        output=output,
        training=training,
        checkpoints=training.checkpoints,
        dtype=dtype,
        config_digest=_DIGEST,
        resume=resume,
        **facts,
    )
