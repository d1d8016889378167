"""What the training processes wrote when they ended, and what of it a person reads first."""

import sys

import pytest

from dynalign_contract.errors import MemoryFullError, StageError, TrainingFailedError
from dynalign_contract.exit_codes import FINAL
from dynalign_trainer.train.processes.launch import explain_end, run_workers

UNSUPPORTED = """\
[rank0]: Traceback (most recent call last):
[rank0]:   File "/venv/dynalign_trainer/train/processes/worker.py", line 62, in <module>
[rank0]:     main()
[rank0]:     ^^^^^^
[rank0]:   File "/venv/peft/tuners/lora/model.py", line 440, in _create_new_module
[rank0]:     raise ValueError(
[rank0]: ValueError: Target module Qwen3RMSNorm((32,), eps=1e-06) is not supported.
[rank0]:[W1129 00:51:18.0 ProcessGroup.cpp:1] Warning: destroy_process_group() was not called
"""
GONE = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "/venv/torch/distributed/distributed_c10d.py", line 81, in wrapper
[rank1]:     return func(*args, **kwargs)
[rank1]:            ^^^^^^^^^^^^^^^^^^^^^
[rank1]: RuntimeError: [/pytorch/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]:4242
"""
MEMORY = """\
[rank3]: Traceback (most recent call last):
[rank3]:   File "/venv/dynalign_trainer/train/packed/head.py", line 33, in forward
[rank3]:     logits = hidden @ weight.T
[rank3]:              ~~~~~~~^~~~~~~~~~
[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total capacity of 79.10 GiB.
"""
CHAINED = """\
Traceback (most recent call last):
  File "/venv/x.py", line 1, in read
    open(path)
KeyError: 'model.norm'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/venv/y.py", line 2, in load
    read(path)
safetensors_rust.SafetensorError: header too large
"""


def ended(text: str, code: int = 1) -> StageError:
    return explain_end(code, text.splitlines())


@pytest.mark.parametrize("text", [UNSUPPORTED, GONE + UNSUPPORTED, UNSUPPORTED + GONE])
def test_the_error_comes_first_whoever_else_fell_over_because_of_it(text: str) -> None:
    error = ended(text)
    assert isinstance(error, TrainingFailedError)
    assert str(error).startswith(
        "ValueError: Target module Qwen3RMSNorm((32,), eps=1e-06) is not supported. (lora/model.py:440 in "
        "_create_new_module)"
    )
    assert not any(noise in str(error) for noise in ("^", "[rank", "Traceback", "Warning"))
    assert error.place


def test_a_lost_connection_is_no_error_that_repeats() -> None:
    error = ended(GONE)
    assert "Connection closed by peer" in str(error)
    assert (error.exit_code in FINAL, error.place) == (False, "")


def test_too_little_memory_of_a_gpu_says_what_to_lower() -> None:
    error = ended(GONE + MEMORY)
    assert isinstance(error, MemoryFullError)
    assert "CUDA out of memory. Tried to allocate 2.00 GiB." in str(error)
    assert "Lower spec.training.tokensPerMicroBatch" in str(error)


def test_of_a_chain_the_first_error_is_told() -> None:
    assert str(ended(CHAINED)).startswith("KeyError: 'model.norm' (venv/x.py:1 in read)")


def test_without_a_traceback_the_last_line_comes_first() -> None:
    error = ended("loading\n  ^^^^\n=====\nthe training process of rank 0 was killed by signal 9\n")
    assert str(error).startswith("the training process of rank 0 was killed by signal 9: ")
    assert str(error).endswith("Before that: loading")
    assert error.place == ""


def test_processes_that_wrote_nothing() -> None:
    assert "nothing was written" in str(ended("", 7))


def test_an_error_of_a_real_process_is_found_in_its_output() -> None:
    script = "def f():\n    raise ZeroDivisionError('of what')\nf()"
    with pytest.raises(TrainingFailedError, match=r"^ZeroDivisionError: of what \(<string>:2 in f\)"):
        run_workers([sys.executable, "-c", script], {}, watch=lambda: None)
