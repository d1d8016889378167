"""What bfloat16 does to training: sums of gradients over micro-batches, and whole trainings against float32."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.gradient_precision import GradientErrors

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("case", ["1", "2", "3", "2 CPU", "3 CPU"])
def test_summed_gradients_are_nearer_to_float64_than_deepspeeds_default(case: str) -> None:
    """With the optimiser in the machine's memory too, where DeepSpeed sums them in other places."""
    command = [sys.executable, "-m", "lab.gradient_precision", *case.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert GradientErrors(*map(float, done.stdout.split()[-2:])).faults == ()


def test_training_in_bfloat16_with_a_gpus_deepspeed_configuration_follows_float32_and_resumes() -> None:
    """What the processes of a GPU are configured with, but for the device and NCCL, computes the same on a CPU."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "support.gpu_deepspeed"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["config"]["zero_optimization"]["overlap_comm"] is True
    assert {f"{method} ZeRO-{stage}" for method in ("LoRA", "Full") for stage in (1, 2, 3)} <= set(found["cases"])
    assert found["faults"] == []
