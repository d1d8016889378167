"""Operations that training takes, for the utilisation of GPUs (docs/goodput.md, "MFU of training"). Pure."""

from collections.abc import Iterable
from typing import Final

from dynalign_contract.model_shape import ModelShape
from dynalign_contract.records import BatchRow
from dynalign_contract.settings import TrainingMethod

_WEIGHT: Final = {TrainingMethod.FULL: 6, TrainingMethod.LORA: 4}
"""Operations for a token and weight: 2 forward, 2 for the gradient of the activations, and 2 for that of the weight,
which is not computed for weights that stay as they are."""
_ATTENTION: Final = 12
"""Operations for a token, an attended token and a value of the heads: 4 forward (scores, and sums of values) and twice
as many backward. They involve no weights, so that an adapter spares none of them."""


def model_flops(shape: ModelShape, rows: Iterable[BatchRow], method: TrainingMethod) -> float:
    """Operations that an optimiser step needs for these rows.

    PaLM's convention (arXiv 2204.02311, appendix B): matrix products forward and backward, attention over the whole
    sequence, nothing for what is computed again to save memory. Two things are less than there: a prompt counts once
    for its group, and the head for the tokens of completions alone. An adapter's own products, about 1 % at rank 16,
    are not counted.
    """
    prompts: dict[str, int] = {}
    tokens = predicted = attended = 0
    for row in rows:
        prompt, completion = len(row["prompt_ids"]), len(row["completion_ids"])
        prompts[row["prompt_id"]] = prompt
        tokens += completion
        predicted += completion
        attended += completion * (prompt + completion)
    tokens += sum(prompts.values())
    attended += sum(prompt * prompt for prompt in prompts.values())
    head = shape.vocabulary * shape.hidden
    products = (shape.active - head) * tokens + head * predicted
    return float(_WEIGHT[method] * products + _ATTENTION * shape.attention_width * attended)
