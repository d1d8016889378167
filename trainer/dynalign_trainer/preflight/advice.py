"""What to change in a chat that a template does not take: the first of a few changes that it would take."""

from collections.abc import Iterator, Sequence

from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.template_errors import TemplateRefusalError


def advise(template: ChatTemplate, turns: Sequence[Message]) -> str:
    """What to change in a chat that the template refuses: the first change that it would take."""
    for changed, advice in _changes(turns):
        try:
            template.render(changed)
        except TemplateRefusalError:
            continue
        return advice
    return "Change its turns, or put a chat_template.jinja that takes them into the model's folder."


def _changes(turns: Sequence[Message]) -> Iterator[tuple[list[Message], str]]:
    yield (
        _fold_system(turns),
        "It takes no system turn there: write that text at the beginning of the first user turn instead.",
    )
    yield (
        _alternate(turns),
        "It wants turns of user and assistant by turns, beginning with the user: join turns that follow one another.",
    )
    yield (
        _alternate(_fold_system(turns)),
        (
            "It takes no system turn, and wants user and assistant by turns, beginning with the user: write the system "
            "text at the beginning of the first user turn, and join turns that follow one another."
        ),
    )


def _fold_system(turns: Sequence[Message]) -> list[Message]:
    """The chat with the texts of its system turns at the beginning of the first user turn."""
    told = [turn["content"] for turn in turns if turn["role"] == "system"]
    rest = [turn for turn in turns if turn["role"] != "system"]
    first = next(index for index, turn in enumerate(rest) if turn["role"] == "user")
    joined = "\n\n".join([*told, rest[first]["content"]])
    return [*rest[:first], Message(role="user", content=joined), *rest[first + 1 :]]


def _alternate(turns: Sequence[Message]) -> list[Message]:
    """The chat from its first user turn on, turns of one role joined."""
    joined: list[Message] = []
    for turn in turns:
        if not joined and turn["role"] == "assistant":
            continue
        if joined and joined[-1]["role"] == turn["role"]:
            joined[-1] = Message(role=turn["role"], content=f"{joined[-1]['content']}\n\n{turn['content']}")
        else:
            joined.append(turn)
    return joined
