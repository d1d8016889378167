"""Names of a stage's inputs in its StageConfig: the operator fills them in, and the stage asks for them.

Beside these, an adapter or the weights of a policy are an input under the policy's version.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Input(StrEnum):
    """An input that a stage has at most once."""

    MODEL = "model"
    """The base model."""
    PROMPTS = "prompts"
    HELD_OUT = "heldout"
    """The artifact with the held-out prompts, that of the first iteration."""
    ROLLOUTS = "rollouts"
    JUDGEMENTS = "judgements"
    ANSWERS = "answers"
    """The latest evaluation before: its answers to the held-out prompts are not sampled again."""
    CAPABILITY = "capability"
    """An earlier evaluation that has examined the base model."""


@dataclass(frozen=True)
class InputSeries:
    """Inputs of one kind, one an earlier iteration."""

    prefix: str

    def of(self, iteration: int) -> str:
        """Name of an iteration's input."""
        return f"{self.prefix}{iteration:03d}"

    def names(self, inputs: Iterable[str]) -> list[str]:
        """Select the names that belong to this series, ordered by iteration."""
        return sorted(name for name in inputs if name.startswith(self.prefix))


HISTORY: Final = InputSeries("history-")
"""Prompts of earlier iterations."""
EVALUATIONS: Final = InputSeries("evaluation-")
"""Evaluations of earlier iterations."""


def is_weights(name: str) -> bool:
    """Whether an input of this name is a model, or a policy's weights, which are an input under its version."""
    others = {str(one) for one in Input if one is not Input.MODEL}
    return name not in others and not name.startswith((HISTORY.prefix, EVALUATIONS.prefix))
