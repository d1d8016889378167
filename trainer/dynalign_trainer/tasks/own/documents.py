"""What the task files of this folder call by name: their items, and the score of a response."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from dynalign_trainer.tasks.own.checks import Check, keeps_all


def load_choices(**_: object) -> dict[str, Any]:
    """Split -> questions with four choices and the index of the right one."""
    return _dataset("choices.jsonl")


def load_instructions(**_: object) -> dict[str, Any]:
    """Split -> prompts with their checks."""
    return _dataset("instructions.jsonl")


def score_response(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 when the first response passes every check of its item, else 0."""
    checks = [Check(kind, value) for kind, value in doc["checks"]]
    return {"kept": float(keeps_all(results[0], checks))}


def _dataset(name: str) -> dict[str, Any]:
    from datasets import Dataset

    lines = resources.files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
