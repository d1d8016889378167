"""What the capability tasks that ship with dynalign ask: prompts must not resemble it."""

import json
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

_TEXT_FIELDS: Final = ("question", "prompt")
"""Fields of a task's items that the model reads."""


def own_task_texts() -> list[str]:
    """The questions and instructions of the tasks that ship with dynalign."""
    return read_task_texts(resources.files("dynalign_trainer.tasks") / "own")


def read_task_texts(folder: Traversable) -> list[str]:
    """The texts of every `*.jsonl` in the folder, in the order of names and lines; none where there is no folder."""
    if not folder.is_dir():
        return []
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".jsonl")), key=lambda file: file.name)
    return [text for file in files for text in _texts(file)]


def _texts(file: Traversable) -> Iterator[str]:
    for line in file.read_text(encoding="utf-8").splitlines():
        item = json.loads(line) if line.strip() else {}
        yield from (item[name] for name in _TEXT_FIELDS if isinstance(item.get(name), str))
