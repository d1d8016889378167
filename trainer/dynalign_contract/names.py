"""Names as Kubernetes takes them, as patterns and in words.

The patterns are read by pydantic (Rust's regex) and by an API server (RE2 in CEL): neither knows lookaround.
"""

from typing import Annotated, Final

from pydantic import Field, JsonValue

_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_SHORT: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_CHARACTER: Final = r"[^/\x00-\x1f\x7f]"
_FOLDER: Final = rf"([^/.\x00-\x1f\x7f]{_CHARACTER}*|\.[^/.\x00-\x1f\x7f]{_CHARACTER}*|\.\.{_CHARACTER}+)"
"""Anything between two slashes but nothing at all, `.` and `..`."""
SUBFOLDER: Final = rf"({_FOLDER}/)*{_FOLDER}"
"""A folder below another, which it does not leave."""


def whole(*patterns: str) -> str:
    """The pattern of a text that is one of these from its beginning to its end."""
    return f"^({'|'.join(patterns)})$"


def form(words: str) -> dict[str, JsonValue]:
    """What a text looks like, in words, for those who got its pattern wrong."""
    return {"x-form": words}


ObjectName = Annotated[
    str,
    Field(
        pattern=whole(SUBDOMAIN),
        max_length=253,
        json_schema_extra=form(
            "the name of a Kubernetes object: lower-case letters, digits, inner hyphens and dots, for example my-object"
        ),
    ),
]
"""A DNS subdomain: Secrets, ConfigMaps, classes of storage, priority and runtime."""

DataKey = Annotated[
    str,
    Field(
        pattern=r"^([-_a-zA-Z0-9]|\.[-_a-zA-Z0-9])[-._a-zA-Z0-9]*$",
        max_length=253,
        json_schema_extra=form("a key of letters, digits, hyphens, underscores and dots, for example api-key"),
    ),
]
"""A key of a Secret or ConfigMap: as a file's name it does not begin with `..`."""

QualifiedName = Annotated[
    str,
    Field(
        pattern=whole(rf"({SUBDOMAIN}/)?{_SHORT}"),
        max_length=317,
        json_schema_extra=form(
            "a name such as zone or example.com/zone, at most 63 letters, digits and -_. after the /"
        ),
    ),
]
"""A key of labels, annotations and taints, and the name of a resource."""

LabelValue = Annotated[
    str,
    Field(
        pattern=whole(rf"({_SHORT})?"),
        max_length=63,
        json_schema_extra=form("letters, digits and inner hyphens, underscores and dots, for example gpu-a100"),
    ),
]
"""The value of a label or a taint; may be empty."""
