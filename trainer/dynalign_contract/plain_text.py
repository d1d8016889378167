"""Text of models, servers, volumes and users, made fit for a terminal, an Event or a status message.

Control characters (C0, C1), escape sequences and bidirectional controls can move the cursor, write to the clipboard, or
show something else than what is there. Files and artifacts keep their text as it is.
"""

import re
from typing import Final

_SEQUENCES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, ...: titles, links
    r"|\x1b[ -/]*[0-~]"  # all other escape sequences
)
_LINE_ENDS: Final = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def plain_text(text: str) -> str:
    """A text without escape sequences, control, surrogate and bidirectional characters; tabs and line ends stay."""
    if text.isascii() and text.isprintable():
        return text
    return _HIDDEN.sub("", _LINE_ENDS.sub("\n", _SEQUENCES.sub("", text)))


def plain_line(text: str) -> str:
    """Plain text on one line: tabs and line ends become spaces."""
    return re.sub(r"[\t\n]+", " ", plain_text(text))


def reveal_hidden(text: str) -> str:
    """A text whose control, surrogate and bidirectional characters are named: U+202E becomes `⟨U+202E⟩`.

    Tabs and line ends stay. For pages, where nothing of a text should be lost and nothing of it should act.
    """
    if text.isascii() and text.isprintable():
        return text
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", _LINE_ENDS.sub("\n", text))


def escape_hidden(json_text: str) -> str:
    """JSON whose hidden characters are written as escapes: the same values, harmless on a terminal."""
    return re.sub(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]",
        lambda match: f"\\u{ord(match[0]):04x}",
        json_text,
    )


def has_hidden(text: str) -> bool:
    """Whether `plain_text` would take anything out."""
    return plain_text(text) != text
