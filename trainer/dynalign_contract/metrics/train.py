"""What the stage train reports."""

from typing import Final

from dynalign_contract.config import TrainParams
from dynalign_contract.metrics.definition import TOKENS_PER_SECOND_EXPORT, Export, MetricDef, StageMetrics, Unit
from dynalign_contract.stages import Stage

_Metric: Final = MetricDef[TrainParams]


class TrainMetrics(StageMetrics):
    """Metrics of the stage train; ratios are the trainer's probability of a token divided by the sampler's."""

    stage = Stage.TRAIN
    trained_steps = _Metric(Unit.COUNT, "Optimiser steps.")
    loss = _Metric(Unit.PLAIN, "Loss, mean over steps.")
    kl = _Metric(Unit.NATS, "KL divergence per token, mean over steps.", export=Export())
    ratio_mean = _Metric(Unit.PLAIN, "Mean probability ratio of trainer and sampler before the first step.")
    ratio_max = _Metric(Unit.PLAIN, "Largest probability ratio of trainer and sampler before the first step.")
    logprob_difference = _Metric(
        Unit.NATS,
        "Mean absolute difference of the trainer's and the sampler's log-probabilities before the first step.",
    )
    clip_share = _Metric(Unit.SHARE, "Share of tokens whose ratio was clipped, mean over steps.")
    grad_norm = _Metric(Unit.PLAIN, "Norm of the gradient before clipping, mean over steps.")
    norm_change = _Metric(Unit.PLAIN, "Norm of the change of the trained weights.")
    rejected_share = _Metric(Unit.SHARE, "Share of rows whose mean ratio lies outside training.ratioBand.")
    dropped_groups_share = _Metric(Unit.SHARE, "Share of groups that teach nothing.")
    noisy_groups_share = _Metric(Unit.SHARE, "Share of groups whose rewards differ no more than the votes explain.")
    masked_share = _Metric(Unit.SHARE, "Share of answers that are left out of the loss.")
    loss_tokens = _Metric(Unit.TOKENS, "Tokens that the loss was taken over.")
    tokens_per_second = _Metric(Unit.TOKENS_PER_SECOND, "Tokens trained on a second.", export=TOKENS_PER_SECOND_EXPORT)
    mfu = _Metric(
        Unit.SHARE,
        "Model FLOPs utilisation of the optimiser steps: of the GPUs' peak in BFloat16, if it is known.",
        export=Export(),
    )
    peak_memory = _Metric(
        Unit.BYTES,
        "Largest memory of a training process at any time: of its GPU as PyTorch allocates it, or of the machine.",
    )
    slowest_link = _Metric(
        Unit.PLAIN, "GB a second in each direction between the two neighbouring nodes of the training that are slowest."
    )
    entropy = _Metric(Unit.NATS, "Entropy of the policy per token, mean over steps.")
