"""The kernels by which vLLM samples on a GPU, and reports log-probabilities there, mean what stages take them for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.installations import triton_folder

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[1] / "support" / "sampling_kernels.py"
RARELY_MORE = 37.7
"""Of chi squared with 15 degrees of freedom: in one of 1,000 samples; the seeds here are fixed."""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(triton_folder()), "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return read


def test_sampled_tokens_have_the_log_probability_and_rank_that_torch_computes(found: dict[str, Any]) -> None:
    assert found["sampled_error"] < 1e-5
    assert found["ranks_agree"] is True


def test_chosen_tokens_follow_the_sampled_one_in_the_order_in_which_they_were_asked_for(found: dict[str, Any]) -> None:
    """As a judge's verdict reads them, also where the sampled token is one of them."""
    sampled, *chosen = found["chosen_ids"]
    assert chosen == list(range(15, 25))
    assert sampled in chosen
    assert found["sampled_first"] is True
    assert max(found["chosen_error"], found["beside_error"]) < 1e-5
    assert found["unasked_are_absent"] is True


def test_tokens_are_drawn_from_the_softmax_at_their_temperature_by_their_seed(found: dict[str, Any]) -> None:
    assert found["chi_squared"] < RARELY_MORE
    assert found["chi_squared_when_hot"] < RARELY_MORE
    assert found["same_seeds_same_tokens"] is True
    assert found["other_seeds_other_tokens"] is True
    assert found["greedy"] is True
