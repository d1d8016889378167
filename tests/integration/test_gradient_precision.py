"""Sums of gradients over micro-batches keep float32's digits where the model computes in bfloat16."""

import subprocess
import sys
from pathlib import Path

import pytest

from lab.gradient_precision import GradientErrors

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_summed_gradients_are_nearer_to_float64_than_deepspeeds_default(zero_stage: int) -> None:
    command = [sys.executable, "-m", "lab.gradient_precision", str(zero_stage)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert GradientErrors(*map(float, done.stdout.split()[-2:])).faults == ()
