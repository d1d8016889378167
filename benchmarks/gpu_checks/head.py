"""The language-model head at full size: log-probabilities against a dense softmax, and its peak memory."""

from typing import Any, Final
from unittest.mock import patch

import torch

from benchmarks.gpu_checks.finding import Finding, Place
from benchmarks.gpu_checks.timing import best_seconds, peak_gib
from dynalign_trainer.train.packed import head

_MOST_GIB: Final = 3.0
_MOST_ERROR: Final = 2e-2
_CHUNKS: Final = (2**25, 2**26, 2**27, 2**28)


def check(place: Place) -> Finding:
    """Forward and backward of a frozen head; memory and the best size of its chunks are measured on CUDA only."""
    tokens, hidden_size, vocabulary = (8192, 4096, 151_936) if place.is_cuda else (96, 64, 1000)
    torch.manual_seed(0)
    device = torch.device(place.device)
    hidden = torch.randn(tokens, hidden_size, device=device, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(vocabulary, hidden_size, device=device, dtype=torch.bfloat16) * hidden_size**-0.5
    targets = torch.randint(vocabulary, (tokens,), device=device)

    def both_passes() -> tuple[torch.Tensor, torch.Tensor]:
        logprobs, _ = head.chosen_logprobs(hidden, weight, targets, 1.0)
        (gradient,) = torch.autograd.grad(logprobs.sum(), hidden)
        return logprobs.detach(), gradient

    peak = peak_gib(both_passes)
    logprobs, gradient = both_passes()
    few = slice(0, 256)
    exact = hidden.detach()[few].float().requires_grad_()
    wanted = (exact @ weight.float().T).log_softmax(-1).gather(1, targets[few, None])[:, 0]
    (right,) = torch.autograd.grad(wanted.sum(), exact)
    errors = {
        "logprob_error": float((logprobs[few] - wanted.detach()).abs().max()),
        "gradient_error": float((gradient[few].float() - right).norm() / right.norm()),
    }
    faults = [f"{name} is {error:.3f}" for name, error in errors.items() if error > _MOST_ERROR]
    values: dict[str, Any] = {name: round(error, 5) for name, error in errors.items()}
    if peak is not None:
        values |= {"peak_gib": round(peak, 2), "chunk_ms": _by_chunk(both_passes)}
        if peak > _MOST_GIB:
            faults.append(f"it takes {peak:.2f} GiB, more than {_MOST_GIB}")
    return Finding(values, tuple(faults))


def _by_chunk(work: Any) -> dict[str, float]:
    """Milliseconds of both passes by the number of logits that exist at one time."""
    found = {}
    for elements in _CHUNKS:
        with patch.object(head, "CUDA_CHUNK_ELEMENTS", elements):
            found[str(elements)] = round(1000 * best_seconds(work, repeats=2), 1)
    return found
