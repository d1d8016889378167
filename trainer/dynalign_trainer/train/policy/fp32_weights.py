"""Float32 weights of the optimiser, whatever the model computes in and wherever ZeRO keeps the parts.

DeepSpeed rounds the weights to bfloat16 and makes the optimiser's copies from what is left. An iteration moves a weight
by less than bfloat16 can tell apart, so policies are written from these copies, and given back to them at the next
start.
"""

from collections.abc import Iterable, Mapping
from typing import Any


def gather_fp32(parameter: Any) -> Any:
    """The optimiser's float32 copy of a parameter, or the parameter itself if there is none; a collective call."""
    from deepspeed.utils import safe_get_full_fp32_param

    found = safe_get_full_fp32_param(parameter)
    return parameter if found is None else found


def set_fp32(parameters: Mapping[str, Any], tensors: Iterable[tuple[str, Any]]) -> None:
    """Set the optimiser's copies of these parameters; what the model computes with must agree up to rounding already.

    A collective call.
    """
    from deepspeed.utils import safe_set_full_fp32_param

    for name, value in tensors:
        if name in parameters:
            safe_set_full_fp32_param(parameters[name], value.float().to(parameters[name].device))
