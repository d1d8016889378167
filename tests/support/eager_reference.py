"""Rows with shared prompts, scored by transformers' eager attention one after the other, and packed."""

from collections.abc import Sequence
from typing import Any, Final

import torch

from dynalign_trainer.train.packed.attention import IMPLEMENTATION
from dynalign_trainer.train.packed.layout import TokenRow, lay_out
from dynalign_trainer.train.packed.policy import PackedPolicy
from dynalign_trainer.train.policy.policy import causal_lm
from support.tiny_models import VOCABULARY, WINDOW

TEMPERATURE: Final = 0.7


def a_row(prompt: str, prompt_ids: list[int], completion: int) -> TokenRow:
    ids = torch.randint(3, VOCABULARY, (completion,)).tolist()
    return {"prompt_id": prompt, "prompt_ids": prompt_ids, "completion_ids": ids}


def some_rows() -> list[TokenRow]:
    """Prompts shorter and longer than the window, shared by completions shorter and longer than it."""
    torch.manual_seed(1)
    rows = []
    for prompt, length in enumerate((2, 9, WINDOW, 1)):
        ids = torch.randint(3, VOCABULARY, (length,)).tolist()
        rows += [a_row(f"p{prompt}", ids, completion) for completion in (7, 1, 12, 2)]
    return rows


def read_eager(policy: Any, rows: Sequence[TokenRow]) -> torch.Tensor:
    """Log-probabilities of the completions, one row after the other, by the model's own forward pass."""
    model = causal_lm(policy)
    model.set_attn_implementation("eager")
    found = []
    for row in rows:
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(row["prompt_ids"]) - 1 : -1]
        logps = (logits / TEMPERATURE).log_softmax(dim=-1)
        found.append(logps.gather(1, torch.tensor(row["completion_ids"])[:, None])[:, 0])
    return torch.cat(found)


def read_packed(policy: Any, rows: Sequence[TokenRow]) -> torch.Tensor:
    """The same by the Packed backend, all rows in one pass."""
    causal_lm(policy).set_attn_implementation(IMPLEMENTATION)
    logps, _ = PackedPolicy(policy, TEMPERATURE).forward(lay_out(rows))
    return logps


def gradients(logps: torch.Tensor, model: Any) -> dict[str, torch.Tensor]:
    """Gradients of a weighted sum of the log-probabilities for the parameters that it depends on."""
    torch.manual_seed(2)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    loss = (logps * torch.randn(len(logps))).sum()
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(trained, found, strict=True) if gradient is not None}


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative distance in the Euclidean norm."""
    return float(((found - wanted).norm() / wanted.norm().clamp_min(1e-9)).detach())
