"""What a verifier sees of an answer, and what it says of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from dynalign_contract.supplied.turns import Message

PASSED: Final = 1.0
FAILED: Final = 0.0
UNDECIDED: Final = math.nan
"""The verifier cannot tell, which is not the answer's fault."""


@dataclass(frozen=True)
class Answer:
    """An answer without the thought before it."""

    text: str
    tokens: int
    """Length of the answer, the final EOS included."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of the supplied prompts -> its value in the prompt's row."""
    prompt_id: str = ""
    candidate: int = 0
    messages: Sequence[Message] = ()
    """The prompt."""


Check: TypeAlias = Callable[[Answer], float]
"""An answer -> PASSED, FAILED or UNDECIDED."""


def verdict(passed: bool) -> float:  # noqa: FBT001 - a truth value is what it converts
    """PASSED for True, FAILED for False."""
    return PASSED if passed else FAILED
