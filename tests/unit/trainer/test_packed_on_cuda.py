"""The packed policy on a GPU that is not there: real models' shapes and number formats, on tensors without values."""

from typing import Any

import pytest

from support.cuda_passes import on_cuda, on_meta, score_rows
from support.real_models import REAL_MODELS

pytestmark = pytest.mark.slow

ROWS = (("a", 7, 5), ("a", 7, 3), ("b", 4, 1))
"""Prompt, its length, and that of the completion."""
Call = tuple[int, int, int, tuple[int, int]]
"""Query heads, key heads, elements of a head, and window of a call of the flash kernel."""
CAUSAL = (-1, 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What the flash kernel is called with; it answers by PyTorch's own description of its results."""
    import torch
    from torch.nn.attention import varlen

    kernel, seen = varlen.varlen_attn, list[Call]()

    def recorded(query: Any, key: Any, value: Any, *bounds: Any, **options: Any) -> Any:
        assert {query.dtype, key.dtype, value.dtype} == {torch.bfloat16}
        seen.append((query.shape[1], key.shape[1], query.shape[2], options["window_size"]))
        return kernel(query, key, value, *bounds, **options)

    monkeypatch.setattr(varlen, "varlen_attn", recorded)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    return seen


EXPECTED: dict[str, list[Call]] = {
    "Qwen3-8B": [(32, 8, 128, CAUSAL)] * 2,
    "Llama-3.1-8B": [(32, 8, 128, CAUSAL)] * 2,
    "Mistral-7B-v0.1": [(32, 8, 128, (4095, 0))] * 2,
    "gemma-2-9b": [],  # the flash kernel caps no scores
    "gemma-3-1b": [*[(4, 1, 256, (511, 0))] * 5, (4, 1, 256, CAUSAL)],
    "gpt-oss-20b": [],  # nor has it sinks
}


@pytest.mark.parametrize("trains_all", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("name", REAL_MODELS)
def test_a_real_model_is_scored_in_bfloat16_by_the_kernel_that_computes_it(
    name: str, trains_all: bool, calls: list[Call]
) -> None:
    import torch

    from dynalign_trainer.models.packable import check_packable

    model = on_meta(name).requires_grad_(trains_all)
    check_packable(model)
    with on_cuda(model):
        logprobs, entropies = score_rows(model, ROWS)
    completions = sum(length for _, _, length in ROWS)
    for found in (logprobs, entropies):
        assert (found.shape, found.dtype, found.device.type) == ((completions,), torch.float32, "cuda")
    assert logprobs.requires_grad is trains_all
    assert calls == EXPECTED[name]


@pytest.mark.parametrize("name", REAL_MODELS)
def test_an_adapter_in_float32_leaves_the_kernels_their_number_format(name: str, calls: list[Call]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
    policy = get_peft_model(on_meta(name), lora, autocast_adapter_dtype=True)
    trained = {parameter.dtype for parameter in policy.parameters() if parameter.requires_grad}
    with on_cuda(policy):
        logprobs, _ = score_rows(policy, ROWS)
    assert trained == {torch.float32}
    assert (logprobs.dtype, logprobs.requires_grad) == (torch.float32, True)
    assert calls == EXPECTED[name]
