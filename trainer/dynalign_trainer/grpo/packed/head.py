"""Log-probabilities of chosen tokens without keeping logits: the language-model head in chunks."""

from typing import Any, Final

import torch
from torch import Tensor

CHUNK_ELEMENTS: Final = 2**23
"""Logits that exist at one time, 32 MiB in float32."""
CUDA_CHUNK_ELEMENTS: Final = 2**27
"""The same on a GPU, where reading the weight anew for a few tokens would cost more than computing with it."""


class _ChosenLogProbs(torch.autograd.Function):
    """The head's weight is frozen, so the gradient of each log-probability can be taken as soon as it is known.

    With p the softmax of the logits z = W h / t, d log p_y / d h = (W_y - W^T p) / t. This is as large as h itself; the
    backward pass multiplies it with what comes from the loss, and no logit is stored or computed twice.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs = hidden.new_empty(len(targets), dtype=torch.float32)
        entropies = torch.empty_like(logprobs)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        chunk = max(1, (CUDA_CHUNK_ELEMENTS if hidden.is_cuda else CHUNK_ELEMENTS) // weight.size(0))
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            logp = torch.log_softmax((hidden[part] @ weight.T).float().div_(temperature), dim=-1)
            logprobs[part] = logp.gather(1, targets[part, None])[:, 0]
            probs = logp.exp()
            entropies[part] = -torch.linalg.vecdot(probs, logp)
            if slopes is not None:
                slopes[part] = (weight[targets[part]] - probs.to(weight.dtype) @ weight).div_(temperature)
        if slopes is not None:
            ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (slopes * grad[:, None]).to(slopes.dtype), None, None, None


def chosen_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `targets` and entropies, shapes (M,), float32, of the distributions that `hidden` predicts.

    `hidden` has shape (M, H), the frozen `weight` (V, H), `targets` (M,). Entropies carry no gradient.
    """
    logprobs, entropies = _ChosenLogProbs.apply(hidden, weight, targets, temperature)  # type: ignore[no-untyped-call]
    return logprobs, entropies
