"""Structural OpenAPI v3 schemas, the dialect that a Kubernetes API server accepts, from pydantic models.

Structural means: every field has a type, nothing is referenced, `properties` and `additionalProperties` never meet, and
what may be left out is simply not required (KEP-1152 names the rules).
"""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

Schema = dict[str, Any]

FORM: Final = "x-form"
"""Keyword of our models, not of OpenAPI: what a text with a pattern looks like, in words."""

KEYS: Final = "x-keys"
"""Keyword of a map of ours: the schema of its keys, for which a structural schema has no place."""

_KEPT: Final = (
    "type",
    "description",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    FORM,
)

_LIST_KEYS: Final = {"conditions": "type"}
"""Lists of objects that are merged by a key; all others are replaced as a whole.

The API server notes for each entry of a merged list, field by field, who wrote it. With a thousand iterations that
takes as much room as the iterations themselves, and etcd's limit of 1.5 MiB is for both.
"""


_VALUES: Final = "x-values"
FREE: Final = "x-kubernetes-preserve-unknown-fields"
"""Keyword of an object whose fields are not known."""


class _Documented(GenerateJsonSchema):
    """Hands on the docstrings of an enum's members."""

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        docs = [f"`{value}`: {text}" for value, text in _member_docs(schema["cls"]).items()]
        return super().enum_schema(schema) | {_VALUES: docs}


def _member_docs(enum: type[Enum]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(enum))).body[0]
    docs: dict[str, str] = {}
    member = ""
    for node in body.body if isinstance(body, ast.ClassDef) else []:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            member = node.targets[0].id
        elif member and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs[str(enum[member].value)] = inspect.cleandoc(str(node.value.value))
            member = ""
    return docs


def structural_schema(model: type[BaseModel]) -> Schema:
    """Schema of a model, with the names that users see; the keywords `x-form` and `x-keys` are still in it."""
    schema = model.model_json_schema(by_alias=True, schema_generator=_Documented)
    return _convert(schema, schema.get("$defs", {}), "")


def without_forms(schema: Any) -> Any:
    """The schema without the keywords that a Kubernetes API server does not know."""
    if isinstance(schema, Mapping):
        return {key: without_forms(value) for key, value in schema.items() if key not in (FORM, KEYS)}
    return [without_forms(item) for item in schema] if isinstance(schema, list) else schema


def _resolve(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Follow references and drop `null` alternatives; what stands beside a reference goes before what it names."""
    while True:
        if "$ref" in schema:
            schema = definitions[schema["$ref"].rpartition("/")[2]] | _without(schema, "$ref")
        elif "anyOf" in schema:
            choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
            if len(choices) != 1:
                raise ValueError(f"a structural schema has no unions, but a field allows {choices}")
            schema = choices[0] | _without(schema, "anyOf")
        else:
            return schema


def _without(schema: Schema, keyword: str) -> Schema:
    return {key: value for key, value in schema.items() if key != keyword}


def _convert(schema: Schema, definitions: Mapping[str, Schema], name: str) -> Schema:
    """One node. `name` is the field's, for the choice of list keys."""
    schema = _resolve(schema, definitions)
    result = _leaf(schema)
    if "properties" in schema:
        result["properties"] = {key: _convert(value, definitions, key) for key, value in schema["properties"].items()}
        if schema.get("required"):
            result["required"] = list(schema["required"])
    elif schema.get(FREE):
        result[FREE] = True
    elif isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(schema["additionalProperties"], definitions, "")
    elif "patternProperties" in schema:
        ((pattern, value),) = schema["patternProperties"].items()
        result["additionalProperties"] = _convert(value, definitions, "")
        result[KEYS] = {"pattern": pattern, **schema["propertyNames"]}
    if "items" in schema:
        result["items"] = _convert(schema["items"], definitions, "")
        result |= _list_type(result["items"], name)
    if schema.get("default") is not None:
        result["default"] = schema["default"] if "properties" not in schema else _complete_default(result)
    return result


def _complete_default(node: Schema) -> Schema:
    """An object's default with those of its fields: the API server applies CEL rules to it before it fills them in."""
    return {name: child["default"] for name, child in node["properties"].items() if "default" in child}


def _leaf(schema: Schema) -> Schema:
    """The keywords of a node that say nothing of its children."""
    result: Schema = {key: schema[key] for key in _KEPT if key in schema}
    if values := schema.get(_VALUES):
        result["description"] = "\n".join([result.get("description", ""), *values]).strip()
    if "const" in schema:
        result["enum"] = [schema["const"]]
    for bound, keyword in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in schema:
            result |= {keyword: schema[bound], bound: True}
    if schema.get("x-kubernetes-int-or-string"):
        del result["type"]
        result |= {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    return result


def _list_type(items: Schema, name: str) -> Schema:
    key = _LIST_KEYS.get(name)
    if key is not None and key in items.get("properties", {}):
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return {"x-kubernetes-list-type": "atomic"}
