"""The chat template by itself: whether it takes a question, and whether it makes the model think first."""

from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_template import TemplateRefusalError, render_chat

_QUESTION: Final = "Why is the sky blue?"
_CHAT: Final = (Message(role="user", content=_QUESTION),)
_OPENS: Final = ("<think>", "<|think|>", "<thinking>", "[THINK]", "<reasoning>")
_ADVICE: Final = (
    "answers may be cut at generation.maxTokens in the middle of a thought, and thoughts are judged with them. Use a "
    "model, or a chat_template.jinja, that answers at once."
)


def check_template(tokenizer: Any, where: str) -> list[str]:
    """Render a question; returns notes about thinking. Raises BadInputError when the template has no place for it."""
    try:
        text = render_chat(tokenizer, _CHAT)
    except TemplateRefusalError as error:
        raise BadInputError(
            f"the chat template in {where} cannot render a single question of a user's ({error.why}). Restore the "
            "template, or put one that does into the folder as chat_template.jinja."
        ) from error
    if _QUESTION not in text:
        raise BadInputError(
            f"the chat template in {where} leaves out what the user says. Restore the template, or put one that shows "
            "each message's content into the folder as chat_template.jinja."
        )
    return _find_thinking(tokenizer, text)


def _find_thinking(tokenizer: Any, text: str) -> list[str]:
    if text.rstrip().endswith(_OPENS):
        return [f"the chat template opens a thought before every answer: {_ADVICE}"]
    try:
        plain = render_chat(tokenizer, _CHAT, enable_thinking=False)
    except TemplateRefusalError:
        return []
    return [f"the chat template lets the model think by default (enable_thinking): {_ADVICE}"] if plain != text else []
