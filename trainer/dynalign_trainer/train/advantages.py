"""Advantages of recorded groups (GRPO: arXiv 2402.03300; Dr. GRPO: arXiv 2503.20783; docs/method.md, "Batch")."""

import math
import statistics
from collections.abc import Sequence
from typing import Final

from dynalign_contract.settings import AdvantageScale

EPSILON: Final = 1e-4
"""Added to a standard deviation before dividing by it: TRL's value, so that both trainers see the same advantages."""


def unbiased_std(rewards: Sequence[float]) -> float:
    """Standard deviation of the rewards that are not NaN, with Bessel's correction (ddof 1), as TRL computes it.

    Fewer than two rewards have no spread: 0.
    """
    scored = [r for r in rewards if not math.isnan(r)]
    return statistics.stdev(scored) if len(scored) > 1 else 0.0


def group_advantages(rewards: Sequence[float], scale: AdvantageScale, batch_std: float) -> list[float]:
    """Advantages of one group, shape (G,), from its rewards, shape (G,).

    A = r - mean(r), divided by std + `EPSILON` of the group (`Group`) or of the whole batch (`Batch`), or undivided
    (`None`). A NaN reward takes no part in mean and deviation and has the advantage 0; its row is to be masked.
    """
    scored = [r for r in rewards if not math.isnan(r)]
    if not scored:
        return [0.0] * len(rewards)
    mean = statistics.fmean(scored)
    if scale is AdvantageScale.NONE:
        divisor = 1.0
    else:
        divisor = (unbiased_std(rewards) if scale is AdvantageScale.GROUP else batch_std) + EPSILON
    return [0.0 if math.isnan(r) else (r - mean) / divisor for r in rewards]
