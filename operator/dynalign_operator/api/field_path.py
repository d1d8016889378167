"""The path of a field in a document."""

FieldPath = tuple[str | int, ...]
"""Keys and list indices from the root: ("spec", "aspects", 0, "id")."""
