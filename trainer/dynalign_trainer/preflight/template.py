"""The chat template by itself: whether it takes a question and a system turn, and what it makes of thoughts."""

from typing import Final

from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_contract.settings import Thinking
from dynalign_trainer.models.answer_start import QUESTION, knows_thoughts
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.reasoning import asks_for_thought
from dynalign_trainer.models.template_errors import TemplateRefusalError

_OFF: Final = "spec.model.chat.thinking: Auto is Off for this model: its chat template lets answers begin at once."
_ON: Final = "spec.model.chat.thinking: Auto is On for this model: its chat template asks for a thought every time."
_UNASKED: Final = (
    'spec.model.chat.thinking is "On", but the chat template says nothing of thoughts: the model thinks only where it '
    "was trained to do so unasked."
)


def check_template(template: ChatTemplate, where: str) -> list[str]:
    """Render a question; returns notes about thinking.

    Raises BadInputError when the template has no place for it, BadConfigError when it cannot do what `model.chat` says.
    """
    try:
        form = template.form
        text = template.render([QUESTION])
    except TemplateRefusalError as error:
        raise _refuse(template, where, error.why) from error
    if QUESTION["content"] not in text:
        raise BadInputError(
            f"the chat template in {where} leaves out what the user says. Restore the template, or put one that shows "
            "each message's content into the folder as chat_template.jinja."
        )
    system = template.settings.system_prompt
    if system is not None and "".join(system.split()) not in "".join(text.split()):
        raise BadConfigError(
            f"the chat template in {where} leaves out what a system turn says. Remove spec.model.chat.systemPrompt."
        )
    if template.settings.thinking is Thinking.AUTO:
        return [_ON if form.thinks else _OFF]
    if form.thinks and not knows_thoughts(form) and not asks_for_thought(text):
        return [_UNASKED]
    return []


def _refuse(template: ChatTemplate, where: str, why: str) -> BadInputError | BadConfigError:
    """The cause among the settings, if there is one: the template takes a question without it."""
    settings = template.settings
    for field, rest in (("systemPrompt", {"system_prompt": None}), ("arguments", {"arguments": {}})):
        other = ChatTemplate(template.tokenizer, settings.model_copy(update=rest))
        if other.settings != settings and _takes_a_question(other):
            return BadConfigError(
                f"the chat template in {where} does not take spec.model.chat.{field} ({why}). Remove or change it."
            )
    return BadInputError(
        f"the chat template in {where} cannot render a single question of a user's ({why}). Restore the "
        "template, or put one that does into the folder as chat_template.jinja."
    )


def _takes_a_question(template: ChatTemplate) -> bool:
    try:
        template.render([QUESTION])
    except TemplateRefusalError:
        return False
    return True
