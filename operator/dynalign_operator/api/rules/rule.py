"""A rule between fields: where it holds, what it says, and its two forms."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClusterRule:
    """What must hold for the object at `at` in a cluster; `dynalign run` may know how to do without."""

    at: str
    """Path from the root to the object; `*` stands for every property, `[]` for every item of a list."""
    field: str
    """The field, relative to `at`, that the message is about; empty for the object itself."""
    cel: str
    """The rule over `self`, in the Common Expression Language."""
    message: str
    """What to write instead: the rest of a sentence that begins with the field."""


@dataclass(frozen=True)
class Rule(ClusterRule):
    """What must hold everywhere."""

    holds: Callable[[Any], bool]
    """The rule in Python, over the model of the object at `at`."""


@dataclass(frozen=True)
class Transition:
    """What must hold between an applied object and its update."""

    at: str
    cel: str
    message: str
    holds: Callable[[Any, Any], bool]
    """Over the old and the new model of the object at `at`."""
