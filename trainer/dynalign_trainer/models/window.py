"""Length of a chat, in tokens of the model that will answer it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalign_contract.settings import ChatSettings
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.folder import context_window, load_tokenizer


@dataclass(frozen=True)
class Window:
    """A model's chat template and context window."""

    chat: ChatTemplate
    max_length: int
    """Tokens, prompt and completion together."""

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.chat.tokenizer

    def length(self, messages: Sequence[Message]) -> int:
        """Tokens of a chat up to where the model begins to write. Raises TemplateRefusalError."""
        return len(self.chat.encode(messages))


def read_window(folder: Path, max_length: int | None, settings: ChatSettings) -> Window:
    """The window of the model in `folder`. Raises BadInputError as the engine would."""
    return Window(ChatTemplate(load_tokenizer(folder), settings), context_window(folder, max_length))
