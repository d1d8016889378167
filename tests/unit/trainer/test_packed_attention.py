"""The kernels of packed attention: which one computes a layer, and what the flash kernel is given."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from dynalign_contract.errors import BadConfigError
from dynalign_trainer.train.packed import segments
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


def attended(plan: Segments, inputs: list[Any], window: int | None = None, **options: Any) -> torch.Tensor:
    query, key, value = inputs
    output, _ = attend(None, query, key, value, window, segments=plan, scaling=0.3, **options)
    return output


def some_inputs(heads: int, key_heads: int) -> list[torch.Tensor]:
    """Queries, keys and values, of which a model makes views that are not contiguous."""
    torch.manual_seed(0)
    tokens = len(LAYOUT.ids)
    made = (torch.randn(1, tokens, count, 8).transpose(1, 2) for count in (heads, key_heads, key_heads))
    return [tensor.requires_grad_() for tensor in made]


@pytest.mark.parametrize("window", [None, 1, 3, 8, 100])
def test_the_flash_kernel_gets_the_same_queries_and_keys(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", flash_as_documented)
    inputs = some_inputs(4, 2)
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
        (CPU, torch.bfloat16, None, False, Kernel.BLOCKS),
        (CPU, torch.float32, None, False, Kernel.BLOCKS),
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


@pytest.mark.parametrize("window", [None, 1, 3, 8])
@pytest.mark.parametrize("rows", [1, 4, 128])
def test_blocks_of_queries_attend_as_pytorchs_attention_does(
    monkeypatch: pytest.MonkeyPatch, window: int | None, rows: int
) -> None:
    """Segments shorter and longer than a block, with one, two and four query heads for a key head."""
    monkeypatch.setattr(segments, "_BLOCK", rows)
    for heads in ((4, 4), (4, 2), (4, 1)):
        inputs = some_inputs(*heads)
        blocks, plain = Segments(LAYOUT.segments, CPU, torch.float32), Segments(LAYOUT.segments, CPU, torch.float32)
        plain.is_on_cpu = False
        found, wanted = attended(blocks, inputs, window), attended(plain, inputs, window)
        assert found.shape == wanted.shape
        assert found.is_contiguous()
        outer = torch.randn_like(wanted)
        pairs = zip(torch.autograd.grad(found, inputs, outer), torch.autograd.grad(wanted, inputs, outer), strict=True)
        assert (found - wanted).abs().max().item() < 1e-6
        assert all((a - b).abs().max().item() < 1e-5 for a, b in pairs)


def test_blocks_in_bfloat16_are_rounded_once() -> None:
    inputs = [tensor.detach().bfloat16().requires_grad_() for tensor in some_inputs(4, 2)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    plan = Segments(LAYOUT.segments, CPU, torch.bfloat16)
    found, wanted = attended(plan, inputs), attended(plan, exact)
    outer = torch.randn(found.shape).bfloat16()
    pairs = zip(
        [found, *torch.autograd.grad(found, inputs, outer)],
        [wanted, *torch.autograd.grad(wanted, exact, outer.double())],
        strict=True,
    )
    for a, b in pairs:
        assert (a.dtype, b.dtype) == (torch.bfloat16, torch.float64)
        assert float(((a.double() - b).norm() / b.norm()).detach()) < 0.004


def test_a_window_beyond_every_row_is_none_and_masks_are_made_once() -> None:
    plan = Segments(LAYOUT.segments, CPU, torch.float32)
    longest = max(part.prefix + part.queries for part in LAYOUT.segments)
    assert plan.masked(longest) is plan.masked(None)
    assert plan.masked(longest - 1) is not plan.masked(None)
    assert plan.masked(3) is plan.masked(3)
    assert plan.blocks(3, group=2) is plan.blocks(3, group=2)


@pytest.mark.parametrize("name", ["position_bias", "indices", "block_indices"])
def test_arguments_that_change_the_result_are_refused(name: str) -> None:
    inputs = [torch.randn(1, heads, len(LAYOUT.ids), 8) for heads in (4, 2, 2)]
    plan = Segments(LAYOUT.segments, CPU, torch.float32)
    attended(plan, inputs, dropout=0.0, sliding_window=4, **{name: None})
    with pytest.raises(BadConfigError, match=f"attention with {name}. Write backend: TRL"):
        attended(plan, inputs, None, **{name: torch.zeros(1)})
