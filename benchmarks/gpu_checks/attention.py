"""Packed attention in bfloat16 against the same code in float32, forward and backward."""

from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.gpu_checks.finding import Finding, Place
from benchmarks.gpu_checks.older_torch import admit_grouped_heads
from dynalign_trainer.train.packed.attention import Kernel, attend, choose_kernel
from dynalign_trainer.train.packed.layout import lay_out
from dynalign_trainer.train.packed.segments import Segments
from lab.recorded_groups import draw_groups

_CUDA_HEADS: Final = ((32, 8, 128), (9, 3, 64), (64, 8, 128), (8, 1, 256))
"""Query heads, key heads, size: Qwen3-8B and Llama-3.1-8B, SmolLM2, Llama-3.1-70B, Gemma."""
_CPU_HEADS: Final = ((4, 2, 32), (3, 1, 64))
_WINDOW: Final = 48
_MOST_ERROR: Final = 2e-2
_LEAST_COSINE: Final = 0.999


def check(place: Place) -> Finding:
    """Compare shared prompts, completions of one token, windows, and the pack of a rank that has no row."""
    admit_grouped_heads()
    size = {"prompt": 200, "lengths": (900, 1, 2, 333)} if place.is_cuda else {"prompt": 70, "lengths": (65, 1, 2, 9)}
    rows = draw_groups(steps=1, groups=3, candidates=4, vocabulary=1000, **size)  # type: ignore[arg-type]
    packs = {"pack": lay_out(rows).segments, "no rows": lay_out([]).segments}
    found: dict[str, Any] = {}
    for heads in _CUDA_HEADS if place.is_cuda else _CPU_HEADS:
        for kind, parts in packs.items():
            for window in (None, _WINDOW):
                found[f"{heads} {kind} window {window}"] = _compare(place.device, heads, parts, window)
    error = max(one["error"] for one in found.values())
    cosine = min(one["cosine"] for one in found.values())
    faults = [name for name, one in found.items() if one["error"] > _MOST_ERROR or one["cosine"] < _LEAST_COSINE]
    sentences = [f"{name} differs from float32: {found[name]}" for name in faults]
    kernels = sorted({one["kernel"] for one in found.values()})
    if place.is_cuda and kernels != [Kernel.FLASH.name]:
        sentences.append(f"the kernel was {kernels}, not {Kernel.FLASH.name}")
    return Finding(
        {"kernel": ",".join(kernels), "most_error": error, "least_cosine": cosine, "cases": found}, tuple(sentences)
    )


def _compare(device: str, heads: tuple[int, int, int], parts: Any, window: int | None) -> dict[str, Any]:
    torch.manual_seed(0)
    queries, keys, size = heads
    length = parts[-1].stop
    shapes = ((1, queries, length, size), (1, keys, length, size), (1, keys, length, size))
    inputs = [torch.randn(shape, device=device).bfloat16() for shape in shapes]
    upstream = torch.randn(1, length, queries, size, device=device).bfloat16()

    def computed(dtype: torch.dtype) -> tuple[Tensor, list[Tensor], Kernel]:
        query, key, value = (one.to(dtype).requires_grad_() for one in inputs)
        segments = Segments(parts, torch.device(device), dtype)
        output, _ = attend(None, query, key, value, window, segments=segments, scaling=size**-0.5)
        gradients = torch.autograd.grad(output, (query, key, value), upstream.to(dtype))
        return output.detach().float(), [g.float() for g in gradients], choose_kernel(segments, None, None)

    wanted, right, _ = computed(torch.float32)
    got, gradients, kernel = computed(torch.bfloat16)
    # The gradients for queries and keys of a single token are zero, and what is computed of them is rounding.
    largest = max(float(gradient.norm()) for gradient in right)
    cosines = [
        float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0))
        for a, b in zip(gradients, right, strict=True)
        if float(b.norm()) > 1e-3 * largest
    ]
    error = float((got - wanted).abs().max() / wanted.abs().max())
    return {"kernel": kernel.name, "error": round(error, 5), "cosine": round(min(cosines), 6)}
