"""Families and settings that go through the whole loop on a CPU."""

from typing import Final

from dynalign_contract.settings import Thinking
from zoo.families import Passes, Thoughts
from zoo.table import FAMILIES

_BOTH_WAYS: Final = ("Qwen3", "gpt-oss, in BFloat16")
"""Families that go through the loop with thoughts too, where their templates leave the choice."""
_CONVERTED: Final = ("gpt-oss, as published",)
"""Quantised families that go through the loop; the others are the same models once fetch has converted them."""
LOOPS: Final = tuple(
    (family, thinking)
    for family in FAMILIES
    if isinstance(family.decision, Passes)
    and not (family.decision.unsampled or family.differs)
    and (family.quantiser is None or family.name in _CONVERTED)
    for thinking in (Thinking.OFF, Thinking.ON)
    if (
        family.decision.thoughts is not Thoughts.ALWAYS
        if thinking is Thinking.OFF
        else family.decision.thoughts is Thoughts.ALWAYS or family.name in _BOTH_WAYS
    )
)
"""Families and settings of `model.chat.thinking` with which the whole loop runs on a CPU."""
