"""What an API server adds to an object that it stores. In a file it tells of another moment, so it is left out."""

from typing import Any, Final

from dynalign_operator.api.field_path import FieldPath
from dynalign_operator.runfile.yaml_documents import Document

_METADATA: Final = (
    *("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
    *("managedFields", "ownerReferences", "selfLink"),
)
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

SERVER_FIELDS: Final[tuple[FieldPath, ...]] = (
    ("status",),
    *(("metadata", name) for name in _METADATA),
    ("metadata", "annotations", _LAST_APPLIED),
)
"""Fields of a stored object that its author did not write."""


def without_server_fields(document: Document) -> tuple[Document, tuple[FieldPath, ...]]:
    """A document without the fields that an API server owns, and the paths of those that held something."""
    data, found = document.data, []
    for path in SERVER_FIELDS:
        data, value = _without(data, path)
        if value:
            found.append(path)
    return Document(data, document.lines, document.duplicates, document.written), tuple(found)


def _without(data: Any, path: FieldPath) -> tuple[Any, Any]:
    """Copy of `data` without the field at `path`, and the field's value; `data` itself where there is no such field."""
    head, *rest = path
    if not isinstance(data, dict) or head not in data:
        return data, None
    if not rest:
        return {key: value for key, value in data.items() if key != head}, data[head]
    child, value = _without(data[head], tuple(rest))
    return (data if child is data[head] else {**data, head: child}), value
