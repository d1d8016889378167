"""What the agents made of the prompts of an iteration: `yield.json` beside them."""

from pydantic import Field

from dynalign_contract.base import Model


class AgentYield(Model):
    """What one agent was given, and what it passed on."""

    agent: str
    """`supplied`, `author`, `curator`, `critic` or `reviser`."""
    model: str = ""
    """Version of the model that played it; empty for those that are code."""
    given: int = 0
    """Texts, or for the author seeds."""
    kept: int = 0
    """Texts passed on."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Cause -> texts."""
    requests: int = 0
    tokens: int = 0
    """Read and written."""


class PromptYield(Model):
    """One set of prompts."""

    purpose: str
    """`train` or `heldout`."""
    wanted: int
    found: int
    agents: tuple[AgentYield, ...] = ()


class PromptYields(Model):
    """The sets of one iteration, in the order of their making."""

    sets: tuple[PromptYield, ...] = ()
