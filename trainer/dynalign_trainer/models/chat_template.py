"""Chats as a model's own template writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from dynalign_contract.settings import DEFAULT_CHAT, ChatSettings
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.answer_start import Arguments, ChatForm, find_form
from dynalign_trainer.models.template_errors import TemplateRefusalError

_SHOWN: Final = 200
TODAY: Final = datetime(2026, 1, 1)  # noqa: DTZ001 - as transformers' own, without a zone
"""The day that templates print which ask for the present one: a prompt is the same on every day of a run."""


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template with the settings of a run: the one way in which chats are rendered."""

    tokenizer: Any
    """A Hugging Face tokenizer."""
    settings: ChatSettings = DEFAULT_CHAT

    @cached_property
    def form(self) -> ChatForm:
        """How the template writes chats by the settings. Raises ThinkingError and TemplateRefusalError."""
        return find_form(self._render, self.settings)

    def complete(self, messages: Sequence[Message]) -> list[Message]:
        """The chat with the settings' system turn, if there is one and the chat has none of its own."""
        prompt = self.settings.system_prompt
        if prompt is None or any(message["role"] == "system" for message in messages[:1]):
            return list(messages)
        return [Message(role="system", content=prompt), *messages]

    def render(self, messages: Sequence[Message]) -> str:
        """Text of a chat up to where the policy begins to write. Raises TemplateRefusalError."""
        form = self.form
        return self._render(self.complete(messages), form.arguments, is_prompt=True) + form.start

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a chat up to where the policy begins to write. Raises TemplateRefusalError."""
        return self._encode(self.render(messages))

    def render_answer(self, messages: Sequence[Message], beginning: str) -> str:
        """Text of a chat up to its answer's `beginning`, after any thought. Raises TemplateRefusalError."""
        form = self.form
        return self._render(messages, form.answer_arguments, is_prompt=True) + form.answer_start + beginning

    def encode_answer(self, messages: Sequence[Message], beginning: str) -> list[int]:
        """Token ids of a chat up to its answer's `beginning`, after any thought. Raises TemplateRefusalError.

        The beginning has the tokens that it has by itself, unless the template writes something before it.
        """
        if self.form.answer_start:
            return self._encode(self.render_answer(messages, beginning))
        return self._encode(self.render_answer(messages, "")) + (self._encode(beginning) if beginning else [])

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _render(self, messages: Sequence[Message], arguments: Arguments, *, is_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages),
                    tokenize=False,
                    add_generation_prompt=is_prompt,
                    strftime_now=TODAY.strftime,
                    **arguments,
                )
            )
        except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            why = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
            raise TemplateRefusalError(why) from error
