"""How DeepSpeed is started for models of the sizes that GPUs train: waiting times and buffers."""

import os
import subprocess
import sys

import pytest

from dynalign_contract.model_shape import shape_of
from dynalign_contract.settings import TrainingSettings
from dynalign_operator.estimate.shapes import known_configs
from dynalign_trainer.train.deepspeed.configuration import deepspeed_config

RANK = 16
SLOW_VOLUME = 0.2e9
"""Bytes a second of a network file system that others use too."""
TIMEOUT = """
import torch, torch.distributed as dist
from dynalign_trainer.train.packed.engine import start_distributed
start_distributed()
options = dist.group.WORLD._get_backend(torch.device("cpu")).options
print(options._timeout.total_seconds())
"""

IMPORTS = """
import sys
from dynalign_trainer.train.processes.worker import leave_out_unused
leave_out_unused()
from transformers import AutoModelForCausalLM, LlamaForCausalLM
import dynalign_trainer.train.packed.lora_linear, dynalign_trainer.train.packed.run, dynalign_trainer.train.trl.run
print(sorted(name for name in ("vllm", "sklearn", "scipy") if sys.modules[name] is not None))
"""


@pytest.mark.slow
def test_training_imports_no_library_that_it_does_not_use() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_processes_wait_for_each_other_while_one_writes_the_largest_policy() -> None:
    """DeepSpeed's own limit, 10 minutes, ends training of 70 B parameters whenever rank 0 writes them."""
    from lab.processes import free_port

    ranks = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    environment = {**os.environ, **ranks, "MASTER_PORT": str(free_port()), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", TIMEOUT], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    largest = max(shape_of(config).parameters for config in known_configs().values())
    assert float(done.stdout.split()[-1]) > 4 * largest / SLOW_VOLUME


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_an_adapter_of_eight_billion_parameters_is_sent_at_once_from_little_memory(zero_stage: int) -> None:
    adapter = RANK * shape_of(known_configs()["qwen/qwen3-8b"]).adapter_width
    buffers = deepspeed_config(TrainingSettings(zero_stage=zero_stage))["zero_optimization"]
    for name in ("reduce_bucket_size", "allgather_bucket_size"):
        assert adapter <= buffers[name]
        assert 4 * buffers[name] <= 0.25 * 2**30, "float32, and DeepSpeed keeps two of them where it overlaps"
