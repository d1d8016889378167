"""Kinds of values that fields of a run have: names, time spans, quantities."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from dynalign_contract.names import LabelValue, QualifiedName, form
from dynalign_operator.api.durations import DURATION_PATTERN


def _quantity_text(value: object) -> object:
    """Kubernetes takes a whole number for a quantity too; everything after this sees text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        max_length=63,
        json_schema_extra=form("lower-case letters, digits and inner hyphens, for example my-run"),
    ),
]
"""Name of a Kubernetes object that has to fit into a label."""

Duration = Annotated[
    str,
    Field(
        pattern=DURATION_PATTERN,
        max_length=32,
        json_schema_extra=form("a time span such as 90s, 30m, 72h or 1d12h"),
    ),
]
"""A time span such as `90s`, `30m`, `72h` or `1d12h`."""

Quantity = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$",
        max_length=32,
        json_schema_extra=form("a quantity such as 500m, 8 or 100Gi") | {"x-kubernetes-int-or-string": True},
    ),
    BeforeValidator(_quantity_text),
]
"""A Kubernetes quantity such as `500m`, `8` or `100Gi`."""

ResourceList = Annotated[dict[QualifiedName, Quantity], Field(max_length=16)]
"""Resource name such as `cpu`, `memory` or `nvidia.com/gpu` -> quantity."""

Labels = Annotated[dict[QualifiedName, LabelValue], Field(max_length=32)]
Annotations = Annotated[dict[QualifiedName, Annotated[str, Field(max_length=4096)]], Field(max_length=32)]

ImageName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$",
        max_length=512,
        json_schema_extra=form("the name of an image, for example registry.example.com/dynalign-trainer:0.1.0"),
    ),
]
"""Name of a container image, with its registry."""
