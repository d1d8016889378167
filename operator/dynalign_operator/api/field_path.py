"""The path of a field in a document."""

import re

FieldPath = tuple[str | int, ...]
"""Keys and list indices from the root: ("spec", "aspects", 0, "id")."""


def parse_field(text: str) -> FieldPath:
    """The place that a text such as `spec.rewards[1].endpoint` names."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", text))
