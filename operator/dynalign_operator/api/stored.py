"""Stored objects, maybe of another version of dynalign: fields that this version does not know are left out.

An API server prunes such fields as well. An unknown value (a phase or stage of a later version) cannot be left out:
what it means decides what is done next, so such an object is not read at all.
"""

import copy
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dynalign_operator.api.field_path import FieldPath
from dynalign_operator.api.status import AlignmentRunStatus

_Stored = TypeVar("_Stored", bound=BaseModel)
_UNKNOWN = "extra_forbidden"
"""The type of pydantic's error for a field that the model does not have."""


def read_stored_status(data: object) -> AlignmentRunStatus:
    """The status of a stored run. Raises pydantic's ValidationError where a value is not of this version's."""
    return read_stored(AlignmentRunStatus, data or {})


def read_stored(model: type[_Stored], data: object) -> _Stored:
    """A stored object without the fields that `model` does not have, however deep.

    Raises pydantic's ValidationError for any other error.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        unknown = [detail["loc"] for detail in error.errors() if detail["type"] == _UNKNOWN]
        if not unknown:
            raise
    known = copy.deepcopy(data)
    for path in unknown:
        _remove(known, path)
    return model.model_validate(known)


def _remove(data: Any, path: FieldPath) -> None:
    *above, name = path
    for part in above:
        data = data[part]
    del data[name]
