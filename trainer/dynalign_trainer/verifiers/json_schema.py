"""Answers that are one JSON document and fit a schema (2020-12), by the library jsonschema.

A schema must not be able to hang a stage: its patterns are RE2's, it refers to nothing outside itself, and a validation
takes a bounded number of steps.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from pydantic import JsonValue
from referencing import Registry
from referencing.exceptions import Unresolvable

from dynalign_contract.errors import BadConfigError
from dynalign_contract.json_size import measure_json
from dynalign_trainer.verifiers.answer import FAILED, UNDECIDED, Answer, Check, verdict
from dynalign_trainer.verifiers.json_text import UnreadableJsonError, read_json
from dynalign_trainer.verifiers.patterns import Pattern

MAX_SCHEMA_CHARACTERS: Final = 16_384
"""Length of a schema, written as JSON without spaces."""
MAX_SCHEMA_DEPTH: Final = 32
"""Objects and lists of a schema inside each other."""
MAX_STEPS: Final = 100_000
"""Keywords of the schema that are applied to one answer."""
_UNSUPPORTED: Final = frozenset(
    {"$dynamicRef", "$dynamicAnchor", "patternProperties", "unevaluatedItems", "unevaluatedProperties"}
)
"""Keywords that the library applies with patterns or searches of its own."""
_PROBES: Final[tuple[JsonValue, ...]] = (None, True, 0, "", [], {})


class _TooManyStepsError(Exception):
    """The schema branches so much that an answer is not decided within its steps."""


def json_schema_check(schema: dict[str, JsonValue], field: str) -> Check:
    """Check that an answer is JSON that fits the schema; `field` is its place in the run file.

    An answer that is no JSON, or too large or deep to be read, fails; one that takes too many steps is undecided.
    Raises BadConfigError naming the field.
    """
    fits = _Schema(schema, field).fits

    def check(answer: Answer) -> float:
        try:
            document = read_json(answer.text)
        except UnreadableJsonError:
            return FAILED
        try:
            return verdict(fits(document))
        except (_TooManyStepsError, RecursionError):
            return UNDECIDED

    return check


class _Schema:
    """A schema that has been checked."""

    def __init__(self, schema: dict[str, JsonValue], field: str) -> None:
        self._patterns: dict[str, Pattern] = {}
        self._left = 0
        _check_size(schema, field)
        for keyword, value in _keywords(schema):
            self._look_at(keyword, value, field)
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            where = "".join(f"[{part!r}]" for part in error.absolute_path)
            raise BadConfigError(f"{field}{where}: {error.message}. Correct the JSON schema (2020-12).") from error
        keywords = Draft202012Validator.VALIDATORS | {"pattern": self._apply_pattern}
        limited = extend(Draft202012Validator, {name: self._counted(apply) for name, apply in keywords.items()})
        self._validator: Any = limited(schema, registry=Registry())
        self._try_out(field)

    def fits(self, document: JsonValue) -> bool:
        """Whether a document is valid. Raises _TooManyStepsError or RecursionError where that is not found out."""
        self._left = MAX_STEPS
        return bool(self._validator.is_valid(document))

    def _look_at(self, keyword: str, value: JsonValue, field: str) -> None:
        if keyword in _UNSUPPORTED:
            raise BadConfigError(f"{field} has {keyword}, which is not supported. Write the schema without it.")
        if keyword == "$ref" and isinstance(value, str) and not value.startswith("#"):
            raise BadConfigError(
                f"{field} refers to {value!r}; only references inside the schema, such as #/$defs/item, are followed. "
                "Copy what it names into $defs."
            )
        if keyword == "pattern" and isinstance(value, str):
            self._patterns[value] = Pattern(value, f"{field}, keyword pattern")

    def _try_out(self, field: str) -> None:
        """Find references to nothing, and those that go round in circles."""
        try:
            for probe in _PROBES:
                self.fits(probe)
        except Unresolvable as error:
            raise BadConfigError(
                f"{field} refers to {error.ref!r}, which it does not have. Add it to $defs."
            ) from error
        except (_TooManyStepsError, RecursionError) as error:
            raise BadConfigError(
                f"{field} does not come to an end: its references go round in circles, or branch into more than "
                f"{MAX_STEPS} steps. Simplify it."
            ) from error

    def _counted(self, apply: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            self._left -= 1
            if self._left < 0:
                raise _TooManyStepsError
            yield from apply(validator, value, instance, schema) or ()

        return counted

    def _apply_pattern(self, validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
        if validator.is_type(instance, "string") and not self._patterns[pattern].matches(instance):
            yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _check_size(schema: dict[str, JsonValue], field: str) -> None:
    if (depth := measure_json(schema).depth) > MAX_SCHEMA_DEPTH:
        raise BadConfigError(f"{field} is {depth} levels deep. Write a schema of at most {MAX_SCHEMA_DEPTH} levels.")
    if (length := len(json.dumps(schema, separators=(",", ":")))) > MAX_SCHEMA_CHARACTERS:
        raise BadConfigError(
            f"{field} has {length} characters as JSON. Write a schema of at most {MAX_SCHEMA_CHARACTERS}."
        )


def _keywords(node: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    """Every name and value of every object of a schema."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield name, value
            yield from _keywords(value)
    elif isinstance(node, list):
        for value in node:
            yield from _keywords(value)
