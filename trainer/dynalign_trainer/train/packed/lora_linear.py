"""Linear layers with a LoRA adapter on a CPU, each as one function: y = x (W + s B A)^T + b.

PEFT computes base and adapter apart, in seven operations that each read or write all outputs. In float32 the sum of
both weights is exact enough to be made anew in every pass, which leaves one product of the tokens in the forward pass.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn


class AdaptedLinear(Linear):  # type: ignore[misc] # PEFT has no types
    """PEFT's layer with another forward pass; what that does not know goes to PEFT's own."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Outputs for x of shape (..., inputs), in its type."""
        base, adapters = self.base_layer, self._adapters()
        is_plain = type(base) is nn.Linear and not base.weight.requires_grad and not self.merged
        if args or kwargs or adapters is None or not is_plain:
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        a, b, scale = adapters
        return _Adapted.apply(x, base.weight, base.bias, a, b, scale)  # type: ignore[no-any-return, no-untyped-call]

    def _adapters(self) -> tuple[Tensor | None, Tensor | None, float] | None:
        """A, B and s of the active adapter, no tensors where it is switched off; None when it is not a plain one."""
        if self.disable_adapters:
            return None, None, 0.0
        names = [name for name in self.active_adapters if name in self.lora_A]
        if len(names) != 1 or names[0] in self.lora_variant or self.lora_bias[names[0]]:
            return None
        (name,) = names
        dropout = self.lora_dropout[name]
        if self.training and isinstance(dropout, nn.Dropout) and dropout.p > 0:
            return None
        return self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]


class _Adapted(torch.autograd.Function):
    """A linear layer with an adapter whose backward pass computes the sum of both weights again.

    With g what comes from the loss and u = x A^T: d x = g (W + s B A), d A = s (g B)^T x, d B = s g^T u. Nothing is
    kept for the backward pass but x, which projections of one input share.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor | None, b: Tensor | None, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.scale = scale
        y = _wide(x).flatten(0, -2) @ _whole(weight, a, b, scale).T
        if bias is not None:
            y += bias
        return y.to(x.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, Tensor | None, None]:
        x, weight, a, b = ctx.saved_tensors
        g = _wide(grad).flatten(0, -2)
        for_x = for_a = for_b = None
        if ctx.needs_input_grad[0]:
            for_x = (g @ _whole(weight, a, b, ctx.scale)).to(x.dtype).view_as(x)
        if a is not None and b is not None:
            inputs = _wide(x).flatten(0, -2)
            for_a = ((g @ _wide(b)).mul_(ctx.scale).T @ inputs).to(a.dtype)
            for_b = (g.T @ (inputs @ _wide(a).T).mul_(ctx.scale)).to(b.dtype)
        return for_x, None, None, for_a, for_b, None


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in its own type where that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _whole(weight: Tensor, a: Tensor | None, b: Tensor | None, scale: float) -> Tensor:
    """W + s B A, shape (outputs, inputs)."""
    wide = _wide(weight)
    if a is None or b is None:
        return wide
    whole = wide.clone() if wide is weight else wide
    return whole.addmm_(_wide(b), _wide(a), alpha=scale)
