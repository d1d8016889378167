"""A model's thoughts and its answer in one text: the marks between them. Pure."""

import re
from dataclasses import dataclass
from typing import Final

_NAMES: Final = r"think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad|seed:think"
_OPENING: Final = rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|channel>thought"
_CLOSING: Final = rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<channel\|>"
_MARK: Final = re.compile(rf"(?P<open>{_OPENING})|(?P<close>{_CLOSING})", re.IGNORECASE)
"""Tags of DeepSeek, Qwen, Magistral, Kimi, Seed, Gemma and models that were taught in words to use tags."""

_OPENED: Final = re.compile(rf"(?P<tag>{_OPENING})(?P<space>\s*)\Z", re.IGNORECASE)
_EMPTY_THOUGHT: Final = re.compile(rf"(?:{_OPENING})\s*(?:{_CLOSING})", re.IGNORECASE)
_UNLIKE_HTML: Final = {
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|channel>thought": "<channel|>",
}
"""Closing marks that are not the opening one with a slash before its name."""

_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(?P<name>\w+)[^<]*<\|message\|>(?P<text>.*?)(?=<\|\w+\|>|\Z)", re.DOTALL)
"""A message of the harmony format, in which answers stand in the channel `final`."""
_BARE_CHANNELS: Final = re.compile(r"\s*analysis(?P<thought>.*)assistant\s*final(?P<answer>.*)", re.DOTALL)
"""The harmony format after its control tokens were dropped in detokenisation."""


@dataclass(frozen=True)
class Parted:
    """A text, parted into what the model thought and what it answered."""

    reasoning: str
    answer: str


def part_reasoning(text: str) -> Parted:
    """Part a text that a model wrote.

    Thoughts are what stands between tags, what stands before a closing tag whose opening one belongs to the chat
    template, what follows an opening tag at a line's beginning that is never closed, and every channel of the harmony
    format but `final`.
    """
    if "<|channel|>" in text:
        return _part_channels(text)
    if bare := _BARE_CHANNELS.fullmatch(text):
        return Parted(bare["thought"].strip(), bare["answer"].strip())
    return _part_tags(text)


@dataclass(frozen=True)
class Completed:
    """A completion of a chat, parted at the place where its answer begins."""

    thought: str
    answer: str
    position: int | None
    """Index of the answer's first character; 0 where nothing was thought, None where the thought never ends."""


def part_completion(text: str) -> Completed:
    """Part what a policy wrote after a prompt, with the mark of a thought that the prompt opened before it.

    A thought stands at the beginning and ends with its first closing mark, or with the opening of the channel `final`.
    Marks after that are the answer's own.
    """
    if "<|channel|>" in text:
        parted = _part_channels(text)
        final = next((found for found in _CHANNEL.finditer(text) if found["name"].lower() == "final"), None)
        return Completed(parted.reasoning, parted.answer, None if final is None else final.start("text"))
    first = _MARK.search(text)
    if first is None or (first["open"] and text[: first.start()].strip()):
        return Completed("", text, 0)
    begin = first.end() if first["open"] else 0
    last = first if first["close"] else next((mark for mark in _MARK.finditer(text, begin) if mark["close"]), None)
    if last is None:
        return Completed(text[begin:].strip(), "", None)
    return Completed(text[begin : last.start()].strip(), text[last.end() :].strip(), last.end())


def opened_thought(prompt: str) -> str:
    """The mark of a thought that a prompt opens at its end, with the space after it; empty if it opens none."""
    opened = _OPENED.search(prompt)
    return "" if opened is None else opened[0]


def close_thought(prompt: str) -> str:
    """What makes the thought that a prompt opens at its end an empty one; empty if it opens none."""
    opened = _OPENED.search(prompt)
    if opened is None:
        return ""
    closing = _UNLIKE_HTML.get(opened["tag"], f"</{opened['tag'][1:]}")
    return f"\n{closing}\n\n" if opened["space"] else closing


def asks_for_thought(prompt: str) -> bool:
    """Whether a prompt opens a thought, or tells the model in words where to write one; empty thoughts do not count."""
    return re.search(_OPENING, _EMPTY_THOUGHT.sub("", prompt), re.IGNORECASE) is not None


def _part_tags(text: str) -> Parted:
    thoughts: list[str] = []
    answer: list[str] = []
    begin, opened = 0, None
    for mark in _MARK.finditer(text):
        if mark["open"]:
            if opened is None:
                answer.append(text[begin : mark.start()])
                opened, begin = mark, mark.end()
            continue
        thoughts.append(
            text[begin : mark.start()] if opened is not None else "".join(answer) + text[begin : mark.start()]
        )
        if opened is None:
            answer = []
        opened, begin = None, mark.end()
    if opened is None:
        answer.append(text[begin:])
    elif _begins_line(text, opened.start()):
        thoughts.append(text[begin:])
    else:
        answer.append(text[opened.start() :])
    if not thoughts:
        return Parted("", "".join(answer))
    return Parted("\n".join(thoughts).strip(), "".join(answer).strip())


def _begins_line(text: str, at: int) -> bool:
    return not text[:at].rpartition("\n")[2].strip()


def _part_channels(text: str) -> Parted:
    messages = [(message["name"].lower(), message["text"].strip()) for message in _CHANNEL.finditer(text)]
    return Parted(
        "\n".join(said for name, said in messages if name != "final"),
        "\n".join(said for name, said in messages if name == "final"),
    )
