"""Phases of a stage's process, as its log names them in one line at its end."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

_PREFIX: Final = "seconds by phase: "
_PAIR: Final = re.compile(r"([a-z][a-z ]*) (\d+\.\d+)")


class Phase(StrEnum):
    """A part of the life of a stage's process, in the order of the parts."""

    INTERPRETER = "interpreter"
    """Python itself; with a preload server the wait for it, and the fork."""
    VERIFICATION = "verification"
    """Digests of the inputs, as far as they take longer than the libraries that are imported beside them."""
    IMPORTS = "imports"
    """The stage's own code with its libraries."""
    READING = "reading"
    """Rows, tokenizer, and what else comes before the engine."""
    ENGINE = "engine"
    """vLLM with the model's weights."""
    PREPARATION = "preparation"
    """Prompts, and the weights of a policy; in train all that comes before the first step."""
    FIRST_STEP = "first step"
    """The engine's first step, which compiles and allocates."""
    WORK = "work"
    """Sampling, judging, training, evaluating, and what comes between their parts."""
    WRITING = "writing"
    """What is left to compute and to write after the last work."""
    MANIFEST = "manifest"
    """Digests of the artifact, and its manifest."""


def describe_phases(seconds: Mapping[Phase, float]) -> str:
    """The line for the log: `seconds by phase: interpreter 0.52, verification 0.10`."""
    return _PREFIX + ", ".join(f"{phase} {value:.2f}" for phase, value in seconds.items())


def read_phases(log: str) -> dict[Phase, float]:
    """The phases of the last such line of a log; empty where there is none."""
    _, found, line = log.rpartition(_PREFIX)
    if not found:
        return {}
    return {Phase(name): float(value) for name, value in _PAIR.findall(line.partition("\n")[0])}
