"""PyTorch 2.11 and 2.12 beside the version that the stages are locked to."""

import inspect
from functools import wraps
from typing import Any

from torch.nn.attention import varlen


def admit_grouped_heads() -> None:
    """Have `varlen_attn` take `enable_gqa` where it does not know it: there it groups heads without being asked."""
    known = varlen.varlen_attn
    if "enable_gqa" in inspect.signature(known).parameters:
        return

    @wraps(known)
    def taking_it(*arguments: Any, enable_gqa: bool = True, **others: Any) -> Any:  # noqa: ARG001 - always so there
        return known(*arguments, **others)

    varlen.varlen_attn = taking_it
