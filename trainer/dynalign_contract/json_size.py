"""How large a JSON document is: bounds for what strangers and models write."""

from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True)
class JsonSize:
    """Size of a JSON document."""

    depth: int
    """Objects and lists inside each other; 0 for a scalar."""
    values: int
    """Values in all objects and lists."""


def measure_json(document: JsonValue) -> JsonSize:
    """Measure a document, level by level and so without recursion."""
    depth, values = 0, 0
    level = [document]
    while containers := [node for node in level if isinstance(node, dict | list)]:
        depth += 1
        level = [child for node in containers for child in (node.values() if isinstance(node, dict) else node)]
        values += len(level)
    return JsonSize(depth, values)
