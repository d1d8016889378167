"""Token statistics of an optimiser step, exact over micro-batches and ranks: sums first, means at the end."""

import math
import os
import resource
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from dynalign_contract.accelerators import accelerator_of
from dynalign_contract.errors import UnfitError
from dynalign_contract.settings import DType, TrainingSettings
from dynalign_trainer.runtime.machine import count_gpus, use_bfloat16
from dynalign_trainer.train.job import StepMeasures
from dynalign_trainer.train.loss import LossTokens, clipped_ratio
from dynalign_trainer.train.processes.ranks import gather

_MOST_WEIGHT: Final = 10.0
"""Weight of a token in the KL, at most: that of one whose probability has grown tenfold."""
_DIVERGED: Final = (
    "training has diverged. Lower spec.training.learningRate or spec.training.maxGradNorm; the run goes on with this "
    "training."
)


def largest_peak_memory() -> int:
    """Largest memory of any rank's process until now, in bytes; a collective call where the ranks have met.

    On a GPU it is what PyTorch has allocated there, on a CPU the process's resident memory.
    """
    has_gpu = count_gpus() > 0
    own = torch.cuda.max_memory_allocated() if has_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(gather(own)) if torch.distributed.is_initialized() else own


def total_peak_flops(dtype: DType) -> float | None:
    """Operations a second of the GPUs of all processes at their peak, which are taken to be alike.

    None without GPUs, for a GPU whose peak is not known (`accelerator_of`), and where training does not compute in
    bfloat16.
    """
    if not count_gpus() or not use_bfloat16(dtype):
        return None
    found = accelerator_of(torch.cuda.get_device_name())
    return None if found is None else found.flops * int(os.environ["WORLD_SIZE"])


def measure_tokens(logps: Tensor, entropies: Tensor, tokens: LossTokens, training: TrainingSettings) -> Tensor:
    """Sums over the loss tokens of one micro-batch, shape (6,): tokens, KL, entropy, ratio, clipped; and the max ratio.

    `logps` and `entropies` have shape (M,). The KL is k3 times the ratio, which is unbiased for the policy's own
    tokens though the sampler drew them (arXiv 2512.02556, "Unbiased KL Estimate"): k3 alone has no bound where a token
    has become unlikely. A ratio counts as `_MOST_WEIGHT` at most, so that no single token that has become likely
    decides the mean. A token counts as clipped where the clip takes its gradient away.
    """
    if not len(logps):
        return torch.zeros(6, dtype=torch.float64)
    ratio = torch.exp(logps - tokens.sampler_logprobs)
    # ratio * (exp(difference) - difference - 1), written so that a large difference does not overflow
    difference = tokens.ref_logprobs - logps
    kl = torch.exp(tokens.ref_logprobs - tokens.sampler_logprobs) - ratio * (difference + 1)
    kl = kl * torch.where(ratio > _MOST_WEIGHT, _MOST_WEIGHT / ratio, 1.0)
    decisive, clip = clipped_ratio(logps, tokens, training), training.clip
    too_low = (decisive < 1 - clip.low) & (tokens.advantages < 0)
    clipped = too_low | ((decisive > 1 + clip.high) & (tokens.advantages > 0))
    if clip.dual is not None:
        clipped |= (decisive > clip.dual) & (tokens.advantages < 0)
    sums = [torch.ones_like(logps), kl, entropies, ratio, clipped]
    return torch.stack([*(value.double().sum() for value in sums), ratio.max().double()]).cpu()


def add_sums(sums: Sequence[Tensor]) -> Tensor:
    """Sums of several micro-batches or ranks together, shape (6,)."""
    stacked = torch.stack(list(sums))
    return torch.cat([stacked[:, :-1].sum(0), stacked[:, -1:].amax(0)])


def summarise_step(sums: Tensor, loss: float, step: int) -> StepMeasures:
    """Means from the sums of `measure_tokens`. Raises UnfitError when the loss is not a finite number."""
    if not math.isfinite(loss):
        raise UnfitError(f"the loss of optimiser step {step} is {loss}: {_DIVERGED}")
    tokens, kl, entropy, ratio, clipped, ratio_max = sums.tolist()
    count = max(tokens, 1.0)
    return StepMeasures(
        loss_tokens=int(tokens),
        loss=loss,
        kl=kl / count,
        entropy=entropy / count,
        ratio_mean=ratio / count,
        ratio_max=ratio_max,
        clip_share=clipped / count,
    )


def check_change(norm: float) -> None:
    """Raise UnfitError when the trained weights are not finite numbers; `norm` is that of their change."""
    if not math.isfinite(norm):
        raise UnfitError(f"the norm of the change of the trained weights is {norm}: {_DIVERGED}")
