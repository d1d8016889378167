"""The order in which training takes the steps of its batch: once in each epoch, pure and deterministic."""

import random


def order_steps(steps: int, *, epochs: int, seed: int) -> tuple[int, ...]:
    """Which step of the batch each optimiser step takes, shape (steps * epochs,).

    The first epoch takes them as they are; every later one takes the same steps in an order of its own. A row thus
    stays with the same rank, which alone has scored it, and in the same micro-batch.
    """
    first = list(range(steps))
    draw = random.Random(seed)  # noqa: S311 - an order, not a secret
    later = [draw.sample(first, steps) for _ in range(epochs - 1)]
    return tuple(step for epoch in (first, *later) for step in epoch)
