"""Log-probabilities that no model should give: they are refused before anything is drawn, judged or trained by them."""

import math
from collections.abc import Iterable

from dynalign_contract.config import BASE_POLICY, Policy
from dynalign_contract.errors import BadInputError


def refuse_infinite(logprobs: Iterable[float], policy: Policy) -> None:
    """Raise BadInputError if a log-probability of a token that was drawn is NaN or infinite."""
    for value in logprobs:
        if not math.isfinite(value):
            raise BadInputError(_explain(value, policy))


def refuse_nan(logprobs: Iterable[float], policy: Policy) -> None:
    """Raise BadInputError if a log-probability is NaN; minus infinity is that of a token that cannot be next."""
    for value in logprobs:
        if math.isnan(value):
            raise BadInputError(_explain(value, policy))


def _explain(value: float, policy: Policy) -> str:
    if policy.version == BASE_POLICY:
        return (
            f"the base model gives a token the log-probability {value}: its weights are damaged, or config.json does "
            "not belong to them (soft caps, scales and rope parameters decide whether activations overflow). Restore "
            "the model's files. If they are as published, write engine.dtype: Float32, or name another model in "
            "spec.model.uri."
        )
    return (
        f"the policy {policy.version} gives a token the log-probability {value}: "
        "its training has diverged. Start a new run with a lower spec.training.learningRate."
    )
