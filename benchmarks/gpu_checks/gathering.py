"""Keys gathered by index_select, as packed attention does, and by indexing, whose backward pass sorts the indices."""

from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import Tensor

from benchmarks.gpu_checks.finding import Finding, Place
from benchmarks.gpu_checks.timing import best_seconds
from dynalign_trainer.train.packed.layout import lay_out
from dynalign_trainer.train.packed.segments import Segments
from lab.recorded_groups import draw_groups

_LEAST_RATIO: Final = 0.95
_MOST_ERROR: Final = 2e-2


def check(place: Place) -> Finding:
    """Time forward and backward of one layer's keys; both ways must give the same gradient."""
    lengths = (900, 500) if place.is_cuda else (40, 20)
    rows = draw_groups(steps=1, groups=2, candidates=8, prompt=lengths[0] // 4, lengths=lengths, vocabulary=100)
    layout = lay_out(rows)
    gather = Segments(layout.segments, torch.device(place.device), torch.bfloat16).flash.gather
    torch.manual_seed(0)
    keys = torch.randn(len(layout.ids), 8, 128, device=place.device, dtype=torch.bfloat16, requires_grad=True)
    upstream = torch.randn(len(gather), 8, 128, device=place.device, dtype=torch.bfloat16)

    def gradient(ways: Callable[[], Tensor]) -> Tensor:
        (found,) = torch.autograd.grad(ways(), keys, upstream)
        return found

    ways = {"index_select": lambda: keys.index_select(0, gather), "index": lambda: keys[gather]}
    exact = torch.zeros(keys.shape, device=place.device).index_add_(0, gather, upstream.float())
    seconds = {name: best_seconds(partial(gradient, way), repeats=5) for name, way in ways.items()}
    errors = {
        name: float((gradient(way).float() - exact).abs().max() / exact.abs().max()) for name, way in ways.items()
    }
    ratio = seconds["index"] / seconds["index_select"]
    faults = [f"the gradient of {name} is {error:.3f} off" for name, error in errors.items() if error > _MOST_ERROR]
    if place.is_cuda and ratio < _LEAST_RATIO:
        faults.append(f"indexing is faster: {seconds}")
    values = {f"{name}_ms": round(1000 * value, 3) for name, value in seconds.items()}
    return Finding(
        {**values, "ratio": round(ratio, 2), "positions": len(layout.ids), "keys": len(gather)}, tuple(faults)
    )
