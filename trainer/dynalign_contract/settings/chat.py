"""How chats with the model are rendered: thoughts, arguments of the chat template, the system turn."""

import json
import math
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from dynalign_contract.base import Model
from dynalign_contract.names import form


class Thinking(StrEnum):
    """Whether the model thinks before it answers."""

    OFF = "Off"
    """Answers begin at once. Fetch refuses a model whose chat template opens a thought that nothing switches off."""
    ON = "On"
    """Answers begin with a thought."""
    AUTO = "Auto"
    """Off where the chat template can do that, On otherwise; fetch says which."""


SWITCHES: Final = ("enable_thinking", "thinking")
"""Arguments by which chat templates switch thoughts on and off; set as `thinking` says."""

RESERVED: Final = (
    *("add_generation_prompt", "chat_template", "continue_final_message", "conversation", "conversations"),
    *("documents", "max_length"),
    *("messages", "padding", "raise_exception", "return_assistant_tokens_mask", "return_dict", "return_tensors"),
    *("self", "strftime_now", "tokenize", "tokenizer_kwargs", "tools", "truncation"),
    *("additional_special_tokens", "bos_token", "cls_token", "eos_token", "mask_token", "pad_token", "sep_token"),
    "unk_token",
)
"""Names that dynalign or transformers pass to a chat template themselves."""


def _as_text(value: object) -> object:
    """A whole number stands in the file as it is; everything after this sees text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


ArgumentName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        max_length=63,
        json_schema_extra=form("the name of a variable of the chat template, such as reasoning_effort"),
    ),
]
"""Name of an argument of a chat template."""

ArgumentValue = Annotated[
    str,
    Field(
        pattern=r"^[^\x00-\x1f\x7f]+$",
        max_length=256,
        json_schema_extra=form('a text or a whole number; true, false and fractions in quotes, such as "true"')
        | {"x-kubernetes-int-or-string": True},
    ),
    BeforeValidator(_as_text),
]
"""Value of an argument of a chat template, as text."""


class ChatSettings(Model):
    """How chats with the model are rendered."""

    thinking: Thinking = Thinking.OFF
    """Whether the model thinks before it answers. "Off" and "On" need quotes: YAML reads the bare words as false and
    true."""
    arguments: Annotated[dict[ArgumentName, ArgumentValue], Field(max_length=16)] = Field(default={})
    """Arguments of the chat template, such as `reasoning_effort: low`. The texts true, false and numbers are passed as
    what they say."""
    system_prompt: str | None = Field(default=None, min_length=1, max_length=16_384)
    """System turn of every prompt that has none of its own; agents and judges have instructions of their own."""

    @property
    def values(self) -> dict[str, str | bool | int | float]:
        """The arguments as the chat template gets them."""
        return {name: _read_value(text) for name, text in self.arguments.items()}


DEFAULT_CHAT: Final = ChatSettings()
"""Chats as the model's own template renders them."""


def _read_value(text: str) -> str | bool | int | float:
    """A JSON scalar is what it says, anything else is a text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) and math.isfinite(value) else text
