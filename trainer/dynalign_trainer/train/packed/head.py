"""Log-probabilities of chosen tokens without keeping logits: the language-model head in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from dynalign_trainer.models.logit_map import PLAIN, LogitMap
from dynalign_trainer.train.packed.precision import to_inputs, to_outputs

CHUNK_ELEMENTS: Final = 2**23
"""Logits that exist at one time, 32 MiB in float32."""
CUDA_CHUNK_ELEMENTS: Final = 2**27
"""Logits that exist at one time on a GPU, where reading the weight anew for a few tokens would cost more."""


@dataclass(frozen=True)
class _Logits:
    """The way from the head's output to the logits z: the model's own map, then the temperature t."""

    map: LogitMap
    temperature: float

    def read(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Logits z / t, float32, and the slopes of the cap at them, both of shape (m, V); no slopes without a cap."""
        logits = to_outputs(hidden, weight)
        if bias is not None:
            logits += bias
        if self.map.scale != 1:
            logits.mul_(self.map.scale)
        slopes = None
        if self.map.cap is not None:
            bounded = logits.div_(self.map.cap).tanh_()
            slopes = 1 - bounded.square()
            logits = bounded.mul_(self.map.cap)
        return logits.div_(self.temperature), slopes

    def pull_back(self, gradient: Tensor) -> Tensor:
        """The gradient for the head's output, of that for z / t times the slopes; in place."""
        gradient.div_(self.temperature)
        return gradient if self.map.scale == 1 else gradient.mul_(self.map.scale)


class _FrozenHead(torch.autograd.Function):
    """The head's weight is frozen, so the gradient of each log-probability can be taken as soon as it is known.

    With p the softmax of the logits z = W h / t, d log p_y / d h = (W_y - W^T p) / t. This is as large as h itself; the
    backward pass multiplies it with what comes from the loss, and no logit is stored or computed twice.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, logits: _Logits
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropies = _new_results(hidden, targets)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for part in _chunks(hidden, weight):
            values, slopes = logits.read(hidden[part], weight, bias)
            logprobs[part], entropies[part], probs = _read(values, targets[part])
            if gradient is None:
                continue
            if slopes is None:
                pulled = weight[targets[part]] - to_inputs(probs, weight)
            else:
                pulled = to_inputs(_pull(probs, targets[part]).mul_(slopes), weight)
            gradient[part] = logits.pull_back(pulled)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad[:, None]).to(gradient.dtype), None, None, None, None


class _TrainedHead(torch.autograd.Function):
    """The gradient for the weight sums over tokens what comes from the loss, so logits are computed again for it.

    With g what comes from the loss, d / d z = g (e_y - p) / t, d / d h = W^T d z, d / d W = d z h^T and d / d b = d z.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, logits: _Logits
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropies = _new_results(hidden, targets)
        for part in _chunks(hidden, weight):
            values, _ = logits.read(hidden[part], weight, bias)
            logprobs[part], entropies[part], _ = _read(values, targets[part])
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.logits = logits
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        hidden, weight, bias, targets = ctx.saved_tensors
        for_hidden = torch.empty_like(hidden)
        for_weight = torch.zeros_like(weight, dtype=torch.float32)
        for_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        for part in _chunks(hidden, weight):
            values, slopes = ctx.logits.read(hidden[part], weight, bias)
            pull = _pull(torch.softmax(values, dim=-1), targets[part]).mul_(
                ctx.logits.pull_back(grad[part, None].clone())
            )
            if slopes is not None:
                pull.mul_(slopes)
            for_hidden[part] = to_inputs(pull, weight)
            for_weight += (pull.to(hidden.dtype).T @ hidden[part]).float()
            if for_bias is not None:
                for_bias += pull.sum(dim=0)
        bias_gradient = None if for_bias is None else for_bias.to(bias.dtype)
        return for_hidden, for_weight.to(weight.dtype), bias_gradient, None, None


def _pull(probs: Tensor, targets: Tensor) -> Tensor:
    """Gradients e_y - p of the targets' log-probabilities for their logits; overwrites the probabilities."""
    pull = probs.neg_()
    return pull.scatter_add_(1, targets[:, None], torch.ones_like(pull[:, :1]))


def _new_results(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logprobs = hidden.new_empty(len(targets), dtype=torch.float32)
    return logprobs, torch.empty_like(logprobs)


def _chunks(hidden: Tensor, weight: Tensor) -> Iterator[slice]:
    """Parts of the tokens whose logits may exist at one time."""
    chunk = max(1, (CUDA_CHUNK_ELEMENTS if hidden.is_cuda else CHUNK_ELEMENTS) // weight.size(0))
    return (slice(start, start + chunk) for start in range(0, len(hidden), chunk))


def _read(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the targets and entropies, shapes (M,), and all probabilities, shape (M, V).

    Overwrites the logits: of tensors of that size no more than two exist at one time.
    """
    logits.sub_(logits.amax(dim=-1, keepdim=True))
    probs = logits.exp()
    total = probs.sum(dim=-1, keepdim=True)
    probs.div_(total)
    logarithm = total.log()[:, 0]
    chosen = logits.gather(1, targets[:, None])[:, 0] - logarithm
    return chosen, logarithm - torch.linalg.vecdot(probs, logits), probs


def chosen_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    bias: Tensor | None = None,
    logit_map: LogitMap = PLAIN,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `targets` and entropies, shapes (M,), float32, of the distributions that `hidden` predicts.

    `hidden` has shape (M, H), `weight` (V, H), `bias` (V,), `targets` (M,). Entropies carry no gradient.
    """
    head = _TrainedHead if weight.requires_grad else _FrozenHead
    logprobs, entropies = head.apply(hidden, weight, bias, targets, _Logits(logit_map, temperature))  # type: ignore[no-untyped-call]
    return logprobs, entropies
