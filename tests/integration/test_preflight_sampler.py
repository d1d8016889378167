"""A model that the installed vLLM cannot sample is refused by fetch."""

import inspect
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from dynalign_contract.result import Outcome
from dynalign_trainer.preflight import checks
from dynalign_trainer.preflight.sampler import HEAD_SIZES, IMPORTS, SamplerError, check_experts, check_recurrence
from lab.tiny_qwen3 import write_tiny_qwen3
from support.preflight_runs import a_preflight, fetch, refusal


@pytest.mark.parametrize("is_cpu_build", [True, False])
def test_heads_without_a_kernel(is_cpu_build: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "is_cpu_build", lambda: is_cpu_build)
    result = fetch(write_tiny_qwen3(tmp_path / "model", head_dim=16), a_preflight(), tmp_path / "root")
    if is_cpu_build:
        assert "attention heads of 16 elements" in refusal(result, tmp_path / "root")
    else:
        assert result.outcome is Outcome.SUCCEEDED, result.error


def test_experts_that_vllm_packs_on_a_cpu() -> None:
    check_experts(["model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.shared_expert.up_proj.weight"], "m")
    with pytest.raises(SamplerError, match=r"keeps its experts one by one \(model\.layers\.0\.mlp\.experts\.1\.up"):
        check_experts(["model.layers.0.mlp.experts.1.up_proj.weight"], "m")
    with pytest.raises(
        SamplerError, match=r"^m keeps its experts as Granite does \(model\.layers\.0\.block_sparse_moe"
    ):
        check_experts(["model.layers.0.block_sparse_moe.input_linear.weight"], "m")


def test_recurrent_layers() -> None:
    import torch

    check_recurrence(torch.nn.Sequential(torch.nn.Linear(2, 2)), "m")
    with pytest.raises(SamplerError, match=r"^m has recurrent layers"):
        check_recurrence(torch.nn.Sequential(torch.nn.Conv1d(2, 2, 2)), "m")


@pytest.mark.slow
def test_the_sizes_are_those_of_the_installed_engine() -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    assert sorted(HEAD_SIZES) == CPUAttentionBackend.get_supported_head_sizes()


@pytest.mark.slow
def test_the_numbers_of_apertus_are_rounded_whatever_the_engine_computes_in() -> None:
    """Why Apertus stands apart in the zoo's table: without the rounding vLLM differs from transformers by 1e-6."""
    import torch
    from vllm.model_executor.layers.activation import XIELU
    from vllm.model_executor.models.apertus import ApertusMLP

    assert inspect.signature(XIELU).parameters["dtype"].default == torch.bfloat16
    assert "XIELU()" in inspect.getsource(ApertusMLP)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "package"), sorted(set(IMPORTS.values())))
def test_the_imports_are_those_of_the_installed_engine(module: str, package: str) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(ModuleNotFoundError, match=package):
        import_module(f"vllm.model_executor.models.{module}")
