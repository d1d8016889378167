"""The packed forward pass beside the numeric tests: the flash kernel's input, and models that it refuses."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.errors import BadConfigError
from dynalign_trainer.train.packed.layout import lay_out
from lab.tiny_qwen3 import write_tiny_qwen3
from support.training_data import make_rollouts

pytestmark = pytest.mark.slow


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_the_flash_kernel_gets_the_same_queries_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from dynalign_trainer.train.packed.attention import attend, build_segments, flash_segments

    def varlen_attn(  # noqa: PLR0917 - the signature is PyTorch's
        query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, **options: Any
    ) -> Any:
        """Flash attention as it is documented: causal from the end, so that the last query sees every key."""
        assert (options["window_size"], options["enable_gqa"]) == ((-1, 0), True)
        outputs = []
        for (q0, q1), (k0, k1) in zip(pairwise(cu_q.tolist()), pairwise(cu_k.tolist()), strict=True):
            assert q1 - q0 <= max_q
            assert k1 - k0 <= max_k
            mask = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(k1 - k0 - (q1 - q0))
            q, k, v = query[q0:q1].transpose(0, 1), key[k0:k1].transpose(0, 1), value[k0:k1].transpose(0, 1)
            found = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=options["scale"], enable_gqa=True)
            outputs.append(found.transpose(0, 1))
        return torch.cat(outputs)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    layout = lay_out(make_rollouts(3, 4))
    torch.manual_seed(0)
    inputs = [torch.randn(1, heads, len(layout.ids), 8, requires_grad=True) for heads in (4, 2, 2)]
    cpu, outer = torch.device("cpu"), torch.randn(1, len(layout.ids), 4, 8)
    plain = build_segments(layout.segments, cpu, torch.bfloat16)
    one_by_one, _ = attend(None, *inputs, None, segments=plain, scaling=0.3)
    at_once, _ = attend(None, *inputs, None, segments=flash_segments(layout.segments, cpu), scaling=0.3)
    assert one_by_one.shape == at_once.shape == (1, len(layout.ids), 4, 8)
    assert (one_by_one - at_once).abs().max().item() < 1e-6
    gradients = [torch.autograd.grad((output * outer).sum(), inputs) for output in (one_by_one, at_once)]
    assert all((a - b).abs().max().item() < 1e-5 for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layer_types": ["full_attention", "linear_attention"]}, "layers of type linear_attention"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0"),
        ({"logits_scaling": 8.0}, "logits_scaling 8.0"),
    ],
)
def test_a_model_that_cannot_be_packed_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    from dynalign_trainer.train.packed.policy import check_packable

    model = load(write_tiny_qwen3(tmp_path)).requires_grad_(requires_grad=False)
    check_packable(model)
    for name, value in changes.items():
        setattr(model.config, name, value)
    with pytest.raises(BadConfigError, match=f"{reason} of Qwen3ForCausalLM. Write backend: TRL"):
        check_packable(model)


def test_a_trained_head_gets_the_gradient_of_plain_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dynalign_trainer.train.packed import head

    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 3 * 40)
    torch.manual_seed(0)
    hidden = torch.randn(10, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    targets, pull = torch.randint(40, (10,)), torch.randn(10)
    logprobs, entropies = head.chosen_logprobs(hidden, weight, targets, 0.7)
    plain = torch.log_softmax(hidden @ weight.T / 0.7, dim=-1)
    assert (logprobs - plain[range(10), targets]).abs().max().item() < 1e-5
    assert (entropies + (plain.exp() * plain).sum(dim=-1)).abs().max().item() < 1e-5
    found = torch.autograd.grad((logprobs * pull).sum(), (hidden, weight))
    wanted = torch.autograd.grad((plain[range(10), targets] * pull).sum(), (hidden, weight))
    assert all((a - b).abs().max().item() < 1e-5 for a, b in zip(found, wanted, strict=True))
