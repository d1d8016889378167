"""The status as it is stored, maybe by another version of the operator: what this version does not know is passed over.

A field that is unknown here is left out. A value that is (a phase or stage of a later version) cannot be: what it means
decides what is done next, so such a status is not read at all.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dynalign_operator.api.status import AlignmentRunStatus


def read_stored_status(data: object) -> AlignmentRunStatus:
    """The status of a stored run. Raises pydantic's ValidationError where a value is not of this version's."""
    try:
        return AlignmentRunStatus.model_validate(data or {})
    except ValidationError:
        return AlignmentRunStatus.model_validate(_known(AlignmentRunStatus, data or {}))


def _known(model: type[BaseModel], data: object) -> object:
    """The data without fields that the model does not have, however deep."""
    if not isinstance(data, Mapping):
        return data
    fields = _fields(model)
    return {key: _within(fields[key], value) for key, value in data.items() if key in fields}


def _within(model: type[BaseModel] | None, value: Any) -> Any:
    if model is None:
        return value
    return [_known(model, item) for item in value] if isinstance(value, list) else _known(model, value)


@cache
def _fields(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Name and alias of every field -> the model of its values, if they have one."""
    inner = {name: _model_of(field.annotation) for name, field in model.model_fields.items()}
    return inner | {field.alias: inner[name] for name, field in model.model_fields.items() if field.alias}


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a field, of its list or of its optional value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part)) is not None), None)
