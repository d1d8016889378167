"""Where an answer begins in a chat, and how a template is asked for thoughts: found with the template itself. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from dynalign_contract.settings import ChatSettings, Thinking
from dynalign_contract.settings.chat import SWITCHES
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.reasoning import asks_for_thought, close_thought
from dynalign_trainer.models.template_errors import TemplateRefusalError, ThinkingError

QUESTION: Final = Message(role="user", content="Why is the sky blue?")
"""A question that says nothing of thoughts or answers."""
_MARK: Final = "AnswerBeginsHere"
"""Content of an assistant's turn: a word, which templates that strip or split contents leave whole."""

Arguments = Mapping[str, str | bool | int | float]


class Render(Protocol):
    """A chat template: messages and arguments -> text. Raises TemplateRefusalError."""

    def __call__(self, messages: Sequence[Message], arguments: Arguments, *, is_prompt: bool) -> str:
        """The chat's text; with `is_prompt` the generation prompt of the assistant's turn follows."""
        ...


@dataclass(frozen=True)
class ChatForm:
    """What a chat template makes of the settings of a run."""

    thinks: bool
    """The policy's answers begin with thoughts."""
    arguments: Arguments
    """Arguments of the template in chats that the policy answers."""
    start: str
    """Text after the generation prompt, before the policy begins to write: where thoughts are off by no argument of the
    template, the way to an answer."""
    answer_arguments: Arguments
    """Arguments of the template in chats whose answer is begun for the model; thoughts are off if that is possible."""
    answer_start: str
    """Text between the generation prompt and an answer that is begun for the model."""


def find_form(render: Render, settings: ChatSettings) -> ChatForm:
    """Find out how a template writes chats by these settings, from renderings of a single question.

    Thoughts are off where an argument of the template switches them off, or where its prompt opens none and an
    assistant's turn shows the place of an answer without one. Raises ThinkingError where they should be off and cannot
    be, and what `render` raises.
    """
    values = settings.values
    switch = next((name for name in SWITCHES if _is_switch(render, values, name)), None)
    off: Arguments = values if switch is None else {**values, switch: False}
    prompt = render([QUESTION], off, is_prompt=True)
    needs_thought = asks_for_thought(prompt)
    if needs_thought and settings.thinking is Thinking.OFF:
        raise ThinkingError
    thinks = needs_thought if settings.thinking is Thinking.AUTO else settings.thinking is Thinking.ON
    answer_start = find_answer_start(render, off)
    return ChatForm(
        thinks=thinks,
        arguments={**values, switch: True} if thinks and switch is not None else off,
        start=answer_start if not thinks and answer_start.strip() else "",
        answer_arguments=off,
        answer_start=answer_start,
    )


def find_answer_start(render: Render, arguments: Arguments) -> str:
    """Text between the generation prompt and the content of an assistant's turn that is to be continued.

    It stands in the rendering of such a turn: an empty thought, the opening of a final channel, a space. Where that
    turn does not go on from the generation prompt, or the template takes no such turn, a thought that the prompt opens
    is closed.
    """
    prompt = render([QUESTION], arguments, is_prompt=True)
    try:
        answered = render([QUESTION, Message(role="assistant", content=_MARK)], arguments, is_prompt=False)
    except TemplateRefusalError:
        return close_thought(prompt)
    before, mark, _ = answered.rpartition(_MARK)
    return before.removeprefix(prompt) if mark and before.startswith(prompt) else close_thought(prompt)


def knows_thoughts(form: ChatForm) -> bool:
    """Whether the template itself has thoughts: an argument that switches them on, or marks before an answer."""
    return form.arguments != form.answer_arguments or bool(form.answer_start.strip())


def _is_switch(render: Render, values: Arguments, name: str) -> bool:
    """Whether an argument of this name makes a difference to a question's prompt."""
    on, off = (render([QUESTION], {**values, name: value}, is_prompt=True) for value in (True, False))
    return on != off
