"""The two kinds of pydantic model that cross a boundary of the system."""

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

    def to_json(self, *, indent: int | None = None) -> str:
        """Serialise with the names that users see."""
        return self.model_dump_json(by_alias=True, indent=indent)
