"""Recorded groups of random tokens."""

import math
import random
from collections.abc import Sequence

from dynalign_contract.records import BatchRow


def draw_groups(
    *, steps: int, groups: int, candidates: int, prompt: int, lengths: Sequence[int], vocabulary: int, seed: int = 7
) -> list[BatchRow]:
    """`groups` prompts in each of `steps` steps, with completions of these lengths by turns, rewards at random.

    The log-probabilities are those of a uniform distribution, as a model with fresh weights nearly has.
    """
    draw = random.Random(seed)
    rows: list[BatchRow] = []
    for group in range(steps * groups):
        prompt_ids = [draw.randrange(vocabulary) for _ in range(prompt)]
        for candidate in range(candidates):
            length = lengths[(group + candidate) % len(lengths)]
            reward = draw.random()
            rows.append(
                {
                    "step": group // groups,
                    "prompt_id": f"p{group:03d}",
                    "candidate": candidate,
                    "prompt_ids": prompt_ids,
                    "completion_ids": [draw.randrange(vocabulary) for _ in range(length)],
                    "logprobs": [-math.log(vocabulary)] * length,
                    "reward": reward,
                    "advantage": 2 * reward - 1,
                    "masked": False,
                }
            )
    return rows
