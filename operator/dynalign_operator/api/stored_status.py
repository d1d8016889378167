"""The status as it is stored, maybe by another version of the operator: what this version does not know is passed over.

A field that is unknown here is left out. A value that is (a phase or stage of a later version) cannot be: what it means
decides what is done next, so such a status is not read at all.
"""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from dynalign_operator.api.status import AlignmentRunStatus


def read_stored_status(data: object) -> AlignmentRunStatus:
    """The status of a stored run. Raises pydantic's ValidationError where a value is not of this version's."""
    return AlignmentRunStatus.model_validate(_known(AlignmentRunStatus, data or {}))


def _known(model: type[BaseModel], data: object) -> object:
    """The data without fields that the model does not have, however deep."""
    if not isinstance(data, Mapping):
        return data
    kept: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        for key in (field.alias, name):
            if key is not None and key in data:
                kept[key] = _within(field.annotation, data[key])
    return kept


def _within(annotation: Any, value: Any) -> Any:
    inner = _model_of(annotation)
    if inner is None:
        return value
    return [_known(inner, item) for item in value] if isinstance(value, list) else _known(inner, value)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a field, of its list or of its optional value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part)) is not None), None)
