"""What vLLM's failures at the start mean, and what its GPU build makes of the engine's arguments."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.errors import BadConfigError, BadInputError, DeviceBusyError
from dynalign_contract.settings import DType, EngineSettings
from dynalign_trainer.models.engine_start import engine_arguments, prepare_environment, start_llm
from lab.tiny_qwen3 import write_tiny_qwen3

pytestmark = pytest.mark.slow

FAKE_CUDA = Path(__file__).parents[1] / "support" / "fake_cuda.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare_environment()
    return write_tiny_qwen3(tmp_path_factory.mktemp("model") / "model", head_dim=32)


def cpu_arguments(model: Path) -> dict[str, Any]:
    return engine_arguments(model, EngineSettings(), 256, lora=None, on_gpu=False)


OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.mark.parametrize(
    ("raised", "expected", "sentence"),
    [
        (
            ValueError("Free memory on device cuda:0 (3.1/80 GiB) on startup is less than desired"),
            DeviceBusyError,
            "another process still holds memory of the GPU",
        ),
        (ValueError("No available memory for the cache blocks."), BadConfigError, "Lower spec.engine.maxLength"),
        (
            ValueError("There is no module or parameter named 'base_model' in Qwen3ForCausalLM"),
            BadInputError,
            "There is no module or parameter named 'base_model'",
        ),
        (OSError("no file named model.safetensors"), BadInputError, "no file named model.safetensors"),
    ],
)
def test_a_failed_start_is_the_models_the_settings_or_the_devices(
    monkeypatch: pytest.MonkeyPatch, model: Path, raised: Exception, expected: type[Exception], sentence: str
) -> None:
    def fail(**_arguments: Any) -> None:
        raise raised

    monkeypatch.setattr("vllm.LLM", fail)
    with pytest.raises(expected, match=sentence):
        start_llm(cpu_arguments(model))


def test_a_model_larger_than_the_gpu_is_a_configuration_that_more_gpus_mend(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    import torch

    def fail(**_arguments: Any) -> None:
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    monkeypatch.setattr("vllm.LLM", fail)
    with pytest.raises(BadConfigError, match=r"Raise spec\.engine\.tensorParallel"):
        start_llm(cpu_arguments(model))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ESTALE, errno.ENOLCK])
def test_what_the_volume_answers_is_no_fault_of_the_model(
    monkeypatch: pytest.MonkeyPatch, model: Path, number: int
) -> None:
    def fail(**_arguments: Any) -> None:
        raise OSError(number, "from the volume")

    monkeypatch.setattr("vllm.LLM", fail)
    with pytest.raises(OSError, match="from the volume") as caught:
        start_llm(cpu_arguments(model))
    assert caught.value.errno == number


def test_an_architecture_that_vllm_does_not_have_is_refused_before_the_device_is_touched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = write_tiny_qwen3(tmp_path / "model", head_dim=32)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModelForCausalLM"]}))
    monkeypatch.setattr("vllm.LLM", lambda **_: pytest.fail("the engine was started"))
    with pytest.raises(BadInputError, match="NoSuchModelForCausalLM"):
        start_llm(cpu_arguments(folder))


CASES = [(tensor_parallel, adapters, dtype) for tensor_parallel in (1, 2) for adapters in (0, 2) for dtype in DType]


@pytest.fixture(scope="module")
def configured(model: Path) -> dict[str, dict[str, Any]]:
    """vLLM's configuration for each case: an H100 answers by a stand-in, and the Python files of both builds agree."""
    cases = [f"{tensor_parallel},{adapters},{dtype}" for tensor_parallel, adapters, dtype in CASES]
    command = [sys.executable, str(FAKE_CUDA), str(model), *cases]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
    return {line["case"]: line for line in lines}


@pytest.mark.parametrize(("tensor_parallel", "adapters", "dtype"), CASES)
def test_vllm_configures_itself_for_a_gpu_from_our_arguments(
    configured: dict[str, dict[str, Any]], tensor_parallel: int, adapters: int, dtype: DType
) -> None:
    found = configured[f"{tensor_parallel},{adapters},{dtype}"]
    number_format = "torch.float32" if dtype is DType.FLOAT32 else "torch.bfloat16"
    assert found["dtype"] == number_format
    assert found["tensor_parallel"] == tensor_parallel
    assert found["executor"] == ("mp" if tensor_parallel > 1 else "uni")
    assert found["start_method"] == "spawn"
    assert found["max_loras"] == (adapters or None)
    assert found["lora_dtype"] == (number_format if adapters else None)
    assert found["chunked_prefill"] is True
    assert found["prefix_caching"] is True
    assert found["logprobs_mode"] == "processed_logprobs"
    # What the tests of the second runner's kernels are about: a change here would have them test what nobody runs.
    assert found["second_runner"] is True
    assert found["asynchronous"] is True
    assert found["graphs"] > 0
