"""The base of all pydantic models that cross a boundary of the system."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """Frozen, strict about unknown fields, snake_case in Python and camelCase in YAML and JSON."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with changed fields. Raises TypeError for a name that is no field, which pydantic would accept."""
        unknown = sorted((update or {}).keys() - type(self).model_fields.keys())
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(unknown)}")
        return super().model_copy(update=update, deep=deep)

    def to_json(self, *, indent: int | None = None) -> str:
        """Serialise with the names that users see."""
        return self.model_dump_json(by_alias=True, indent=indent)
