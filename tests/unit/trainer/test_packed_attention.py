"""The kernels of packed attention: which one computes a layer, and what the flash kernel is given."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from dynalign_contract.errors import BadConfigError
from dynalign_trainer.train.packed.attention import Kernel, attend, choose_kernel
from dynalign_trainer.train.packed.layout import lay_out
from dynalign_trainer.train.packed.segments import Segments
from support.training_data import make_rollouts

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
LAYOUT = lay_out(make_rollouts(3, 4))


def flash_as_documented(  # noqa: PLR0917 - the signature is PyTorch's
    query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, **options: Any
) -> Any:
    """Flash attention aligned at the end, so that the last query sees the last key and `left` keys before it."""
    left, right = options["window_size"]
    assert (right, options["enable_gqa"]) == (0, True)
    outputs = []
    for (q0, q1), (k0, k1) in zip(pairwise(cu_q.tolist()), pairwise(cu_k.tolist()), strict=True):
        assert q1 - q0 <= max_q
        assert k1 - k0 <= max_k
        shift = k1 - k0 - (q1 - q0)
        mask = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(shift)
        if left >= 0:
            mask = mask.triu(shift - left)
        q, k, v = query[q0:q1].transpose(0, 1), key[k0:k1].transpose(0, 1), value[k0:k1].transpose(0, 1)
        found = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=options["scale"], enable_gqa=True)
        outputs.append(found.transpose(0, 1))
    return torch.cat(outputs)


def attended(segments: Segments, inputs: list[Any], window: int | None = None, **options: Any) -> torch.Tensor:
    query, key, value = inputs
    output, _ = attend(None, query, key, value, window, segments=segments, scaling=0.3, **options)
    return output


@pytest.mark.parametrize("window", [None, 1, 3, 8, 100])
def test_the_flash_kernel_gets_the_same_queries_and_keys(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", flash_as_documented)
    torch.manual_seed(0)
    inputs = [torch.randn(1, heads, len(LAYOUT.ids), 8, requires_grad=True) for heads in (4, 2, 2)]
    outer = torch.randn(1, len(LAYOUT.ids), 4, 8)
    plain = Segments(LAYOUT.segments, CPU, torch.bfloat16)
    flash = Segments(LAYOUT.segments, CPU, torch.bfloat16)
    flash.has_flash = True
    one_by_one, at_once = attended(plain, inputs, window), attended(flash, inputs, window)
    assert one_by_one.shape == at_once.shape == (1, len(LAYOUT.ids), 4, 8)
    assert (one_by_one - at_once).abs().max().item() < 1e-6
    found = [torch.autograd.grad((output * outer).sum(), inputs) for output in (one_by_one, at_once)]
    assert all((a - b).abs().max().item() < 1e-5 for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("device", "dtype", "softcap", "has_sinks", "kernel"),
    [
        (CUDA, torch.bfloat16, None, False, Kernel.FLASH),
        (CUDA, torch.float32, None, False, Kernel.SDPA),
        (CPU, torch.bfloat16, None, False, Kernel.SDPA),
        (CUDA, torch.bfloat16, 50.0, False, Kernel.MATMUL),
        (CUDA, torch.bfloat16, None, True, Kernel.MATMUL),
        (CPU, torch.float32, 50.0, True, Kernel.MATMUL),
    ],
)
def test_a_layer_goes_to_the_fastest_kernel_that_computes_it(
    device: torch.device, dtype: torch.dtype, softcap: float | None, has_sinks: bool, kernel: Kernel
) -> None:
    sinks = torch.zeros(4) if has_sinks else None
    assert choose_kernel(Segments(LAYOUT.segments, device, dtype), softcap, sinks) is kernel


def test_a_window_beyond_every_row_is_none_and_masks_are_made_once() -> None:
    segments = Segments(LAYOUT.segments, CPU, torch.float32)
    longest = max(part.prefix + part.queries for part in LAYOUT.segments)
    assert segments.masked(longest) is segments.masked(None)
    assert segments.masked(longest - 1) is not segments.masked(None)
    assert segments.masked(3) is segments.masked(3)


@pytest.mark.parametrize("name", ["position_bias", "indices", "block_indices"])
def test_arguments_that_change_the_result_are_refused(name: str) -> None:
    inputs = [torch.randn(1, heads, len(LAYOUT.ids), 8) for heads in (4, 2, 2)]
    segments = Segments(LAYOUT.segments, CPU, torch.float32)
    attended(segments, inputs, dropout=0.0, sliding_window=4, **{name: None})
    with pytest.raises(BadConfigError, match=f"attention with {name}. Write backend: TRL"):
        attended(segments, inputs, None, **{name: torch.zeros(1)})
