"""Nothing that a model, a server or a user writes reaches a terminal as anything but text."""

import json

import pytest

from dynalign_contract.plain_text import escape_hidden, has_hidden, plain_line, plain_text
from dynalign_contract.result import Outcome, ResultError, StageResult

HOSTILE = {
    "colour": ("\x1b[31mred\x1b[0m", "red"),
    "clipboard": ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
    "clipboard, ended by ST": ("a\x1b]52;c;ZXZpbA==\x1b\\b", "ab"),
    "clipboard in C1": ("a\x9d52;c;ZXZpbA==\x9cb", "ab"),
    "title": ("\x1b]0;owned\x07b", "b"),
    "link": ("\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "click"),
    "clear screen": ("\x1b[2J\x1b[Hx", "x"),
    "CSI in one character": ("\x9b31mx", "x"),
    "device control": ("\x1bPq#0\x1b\\x", "x"),
    "reset": ("\x1bcx", "x"),
    "cut in the middle": ("x\x1b", "x"),
    "a title without an end hides nothing": ("\x1b]0;x and more", "0;x and more"),
    "bell, backspace, null": ("a\x07\x08\x00b", "ab"),
    "right to left": ("a\u202egnp.exe\u202c", "agnp.exe"),
    "isolates": ("\u2066a\u2069\u200e\u200f\u061c", "a"),
    "byte order mark": ("\ufeffa", "a"),
    "half a character": ("a\ud83d", "a"),
    "carriage return": ("real\rfake\r\nx", "real\nfake\nx"),
    "line ends of Unicode": ("a\x85b\u2028c", "a\nb\nc"),
}
HARMLESS = ("", "a\tb\nc", "שלום", "مرحبا", "e\u0301", "中文 😀", "[/red] [bold]", "100 %")


@pytest.mark.parametrize(("text", "plain"), HOSTILE.values(), ids=HOSTILE)
def test_what_moves_or_hides_is_taken_out(text: str, plain: str) -> None:
    assert plain_text(text) == plain
    assert has_hidden(text)
    assert not has_hidden(plain)


@pytest.mark.parametrize("text", HARMLESS)
def test_text_stays_as_it_is(text: str) -> None:
    assert plain_text(text) == text


def test_a_line_has_no_line_ends() -> None:
    assert plain_line("a\nb\tc\r\nd") == "a b c d"


@pytest.mark.parametrize("text", [text for text, _ in HOSTILE.values() if text.isprintable() or "\ud83d" not in text])
def test_json_keeps_its_values(text: str) -> None:
    escaped = escape_hidden(json.dumps({"text": text}, ensure_ascii=False, indent=2))
    assert json.loads(escaped) == {"text": text}
    assert not has_hidden(escaped)


def test_what_a_stage_says_of_its_failure_is_plain_for_whoever_reads_it() -> None:
    """The operator decodes what any pod of the namespace may have written; both ends of the contract clean it."""
    error = ResultError(reason="Bad\x1b[31m", message="it says \x1b]52;c;QQ==\x07\u202eok")
    result = StageResult(outcome=Outcome.FAILED, exit_code=1, error=error)
    raw = '{"outcome": "Failed", "error": {"reason": "Bad", "message": "it says \\u001b[2J\\u202eok"}}'
    for read in (StageResult.decode(result.encode()), StageResult.decode(raw)):
        assert read.error == ResultError(reason="Bad", message="it says ok")
