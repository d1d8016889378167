"""Log-probabilities of chosen tokens without keeping logits: the language-model head in chunks."""

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

CHUNK_ELEMENTS: Final = 2**23
"""Logits that exist at one time, 32 MiB in float32."""
CUDA_CHUNK_ELEMENTS: Final = 2**27
"""Logits that exist at one time on a GPU, where reading the weight anew for a few tokens would cost more."""


class _FrozenHead(torch.autograd.Function):
    """The head's weight is frozen, so the gradient of each log-probability can be taken as soon as it is known.

    With p the softmax of the logits z = W h / t, d log p_y / d h = (W_y - W^T p) / t. This is as large as h itself; the
    backward pass multiplies it with what comes from the loss, and no logit is stored or computed twice.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs, entropies = _new_results(hidden, targets)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for part in _chunks(hidden, weight):
            logprobs[part], entropies[part], probs = _read(hidden[part], weight, targets[part], temperature)
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


class _TrainedHead(torch.autograd.Function):
    """The gradient for the weight sums over tokens what comes from the loss, so logits are computed again for it.

    With g what comes from the loss, d / d z = g (e_y - p) / t, d / d h = W^T d z and d / d W = d z h^T.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs, entropies = _new_results(hidden, targets)
        for part in _chunks(hidden, weight):
            logprobs[part], entropies[part], _ = _read(hidden[part], weight, targets[part], temperature)
        ctx.save_for_backward(hidden, weight, targets)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, targets = ctx.saved_tensors
        for_hidden = torch.empty_like(hidden)
        for_weight = torch.zeros_like(weight, dtype=torch.float32)
        for part in _chunks(hidden, weight):
            pull = torch.softmax((hidden[part] @ weight.T).float().div_(ctx.temperature), dim=-1).neg_()
            pull.scatter_add_(1, targets[part, None], torch.ones_like(pull[:, :1]))
            pull.mul_(grad[part, None] / ctx.temperature)
            for_hidden[part] = pull.to(weight.dtype) @ weight
            for_weight += (pull.to(hidden.dtype).T @ hidden[part]).float()
        return for_hidden, for_weight.to(weight.dtype), None, None


def _new_results(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logprobs = hidden.new_empty(len(targets), dtype=torch.float32)
    return logprobs, torch.empty_like(logprobs)


def _chunks(hidden: Tensor, weight: Tensor) -> Iterator[slice]:
    """Parts of the tokens whose logits may exist at one time."""
    chunk = max(1, (CUDA_CHUNK_ELEMENTS if hidden.is_cuda else CHUNK_ELEMENTS) // weight.size(0))
    return (slice(start, start + chunk) for start in range(0, len(hidden), chunk))


def _read(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the targets and entropies, shapes (M,), and all probabilities, shape (M, V)."""
    logp = torch.log_softmax((hidden @ weight.T).float().div_(temperature), dim=-1)
    probs = logp.exp()
    return logp.gather(1, targets[:, None])[:, 0], -torch.linalg.vecdot(probs, logp), probs


def chosen_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `targets` and entropies, shapes (M,), float32, of the distributions that `hidden` predicts.

    `hidden` has shape (M, H), `weight` (V, H), `targets` (M,). Entropies carry no gradient.
    """
    head = _TrainedHead if weight.requires_grad else _FrozenHead
    logprobs, entropies = head.apply(hidden, weight, targets, temperature)  # type: ignore[no-untyped-call]
    return logprobs, entropies
