"""The protocol `dynalign.rewards/v1`: what servers (`type: Http`) and functions (`type: Python`) get and give.

A server is asked by POST with a RewardRequest and answers with a RewardResponse; by GET it says with a RewardProtocols
which versions it speaks. A function gets the same request as a dict and returns the list of values.
"""

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

PROTOCOL: Final = "dynalign.rewards/v1"
"""Name and version; another version is another name."""
ENTRY_POINTS: Final = "dynalign.rewards.v1"
"""Group of the entry points behind which functions of this version are found."""


class _Message(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, strict=True, frozen=True)


class RewardTurn(_Message):
    """A turn of a prompt."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str


class RewardItem(_Message):
    """An answer whose value is wanted."""

    group: str
    """Id of the prompt: answers to the same prompt have the same."""
    candidate: int
    """Number of the answer in its group, from 0."""
    messages: tuple[RewardTurn, ...]
    """The prompt; the last turn is the user's."""
    answer: str
    """The answer, without a thought."""
    columns: dict[str, str]
    """Column -> its value in the prompt's row, as text, of those that the run's `columns` ask for; a column that the
    row does not have is absent."""


class RewardRequest(_Message):
    """A batch of answers."""

    protocol: Literal["dynalign.rewards/v1"] = PROTOCOL
    run: str
    """Name of the run."""
    iteration: int
    """0-based."""
    reward: str
    """Name of the reward in `spec.rewards`."""
    items: tuple[RewardItem, ...]

    def encode(self) -> bytes:
        """The request as JSON: the same bytes for the same request, in ASCII."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode("ascii")


class RewardResponse(_Message):
    """What the answers are worth."""

    values: tuple[Annotated[float, Field(allow_inf_nan=False)] | None, ...]
    """One for each item, in order, within the reward's range; null for an answer that cannot be decided."""


class RewardProtocols(_Message):
    """The versions of the protocol that a server speaks."""

    protocols: tuple[str, ...]
    """Among them `dynalign.rewards/v1`."""


def build_json_schema() -> dict[str, Any]:
    """JSON schemas (2020-12) of the messages, under `$defs`."""
    models = (RewardRequest, RewardResponse, RewardProtocols)
    _, schema = models_json_schema([(model, "validation") for model in models], title=PROTOCOL)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
