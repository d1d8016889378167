"""Length of a chat, in tokens of the model that will answer it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_template import encode_chat
from dynalign_trainer.models.folder import context_window, load_tokenizer


@dataclass(frozen=True)
class Window:
    """A model's tokenizer and context window."""

    tokenizer: Any
    max_length: int
    """Tokens, prompt and completion together."""

    def length(self, chat: Sequence[Message]) -> int:
        """Tokens of a chat up to the assistant's turn. Raises TemplateRefusalError."""
        return len(encode_chat(self.tokenizer, chat))


def read_window(folder: Path, max_length: int | None) -> Window:
    """The window of the model in `folder`. Raises BadInputError as the engine would."""
    return Window(load_tokenizer(folder), context_window(folder, max_length))
