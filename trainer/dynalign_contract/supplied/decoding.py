"""Decodes the bytes of a user's file into text, everywhere in the same way."""

import codecs
import re
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOK_AT: Final = 64
_LINE_END: Final = re.compile(r"\r\n|\n|\r")


class UndecodableError(ValueError):
    """The bytes are no text. The message says where and what to do, as a clause that follows the file's name."""


def decode_text(data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one.

    Raises UndecodableError naming the line.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            shown = encoding.removesuffix("-sig").upper()
            raise UndecodableError(f"begins as {shown} text but is damaged. Save it again, as UTF-8.") from error
        if b"\x00" in data[:_LOOK_AT]:
            raise UndecodableError("looks like UTF-16 without a byte order mark. Save it as UTF-8.") from error
        line = data.count(b"\n", 0, error.start) + 1
        raise UndecodableError(
            f"is not UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}. Save it as UTF-8."
        ) from error


def split_lines(text: str) -> list[str]:
    """Lines as Unix, Windows and old Macintosh files end them; other separators of Unicode belong to the text."""
    return _LINE_END.split(text)


def describe_bad_character(text: str) -> str | None:
    """What a text holds that no tokenizer can read, and what to do, as a clause; None for a sound text."""
    if "\x00" in text:
        return "holds a NUL character (\\u0000); remove it"
    lone = next((character for character in text if "\ud800" <= character <= "\udfff"), None)
    if lone is not None:
        return (
            f"holds half of a character (\\u{ord(lone):04x}, one of a surrogate pair without the other); write the "
            "whole character, or remove it"
        )
    return None
