"""What a model's chat template makes of a chat. Templates are programs: what they refuse becomes a sentence."""

from collections.abc import Sequence
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.supplied.turns import Message

_SHOWN: Final = 200


class TemplateRefusalError(BadInputError):
    """The template does not take this chat. `why` is what it says itself."""

    reason = "TemplateRefusal"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the model's chat template does not take a chat ({why}). Change the chat's turns, or put a "
            "chat_template.jinja that takes them into the model's folder."
        )
        self.why = why


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat up to the assistant's turn. Raises TemplateRefusalError."""
    return list(_apply(tokenizer, messages, tokenize=True, return_dict=False))


def render_chat(tokenizer: Any, messages: Sequence[Message], **arguments: Any) -> str:
    """Text of a chat up to the assistant's turn; `arguments` are the template's own. Raises TemplateRefusalError."""
    return str(_apply(tokenizer, messages, tokenize=False, **arguments))


def render_prefilled_chat(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Text of a chat whose last turn is the beginning of the assistant's. Raises TemplateRefusalError."""
    continuing = {"add_generation_prompt": False, "continue_final_message": True}
    return str(_apply(tokenizer, messages, tokenize=False, **continuing))


def _apply(tokenizer: Any, messages: Sequence[Message], **arguments: Any) -> Any:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(list(messages), **{"add_generation_prompt": True, **arguments})
    except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        why = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
        raise TemplateRefusalError(why) from error
