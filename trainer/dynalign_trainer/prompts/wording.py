"""Which words of a prompt are its own, and which it shares with others by design. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from dynalign_contract.supplied.turns import Message


@dataclass(frozen=True)
class Wording:
    """A prompt's words, as the curator and the statistics look at them."""

    text: str
    """All turns."""
    turn: str
    """The last turn: what is asked. System turns and earlier turns are often those of a whole data set."""
    own: str
    """The last turn without the beginning that a seed dictated."""
    is_written: bool = False
    """Whether an agent wrote it, which must keep clear of the held-out prompts; the phrases of a prompt that the user
    supplied may be those of all of the user's prompts."""


def read_wording(messages: Sequence[Message], opening: str = "", *, is_written: bool = False) -> Wording:
    """The wording of a chat; `opening` is the beginning that its seed dictated."""
    turn = messages[-1]["content"]
    return Wording(
        text="\n".join(message["content"] for message in messages),
        turn=turn,
        own=turn.removeprefix(opening),
        is_written=is_written,
    )


def written_wording(text: str, own: str = "") -> Wording:
    """The wording of a prompt that an agent wrote; `own` leaves out what its seed dictated."""
    return Wording(text=text, turn=text, own=own or text, is_written=bool(own))


def own_words(messages: Sequence[Message], opening: str = "") -> str:
    """A prompt's own words alone."""
    return read_wording(messages, opening).own


def asked_words(messages: Sequence[Message]) -> str:
    """All that a user asks in a chat: what must not leak where the chat is a benchmark's."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")
