"""Verifiers: what passes, what fails, and what cannot be decided."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from dynalign_contract.errors import BadConfigError
from dynalign_contract.settings import RewardSettings
from dynalign_trainer.verifiers.answer import Answer
from dynalign_trainer.verifiers.combining import combine_rewards, judge_share
from dynalign_trainer.verifiers.json_schema import MAX_SCHEMA_CHARACTERS, MAX_SCHEMA_DEPTH, MAX_STEPS
from dynalign_trainer.verifiers.json_text import MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES
from dynalign_trainer.verifiers.verifier import build_verifier, verify

PASSED, FAILED, UNDECIDED = 1.0, 0.0, math.nan
ITEM = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
LIST_OF_ITEMS = {"type": "array", "items": {"$ref": "#/$defs/item"}, "$defs": {"item": ITEM}}


def value_of(text: str, columns: Mapping[str, str] | None = None, tokens: int = 3, **reward: Any) -> float:
    settings = RewardSettings.model_validate({"name": "v", **reward})
    (values,) = verify([build_verifier(settings, "rewards[0]")], [Answer(text, tokens, columns or {})])
    (value,) = values.values()
    return value


def nested(levels: int) -> dict[str, Any]:
    """A schema of so many levels."""
    return {} if levels == 1 else {"not": nested(levels - 1)}


def same(found: float, wanted: float) -> bool:
    return found == wanted or (math.isnan(found) and math.isnan(wanted))


@pytest.mark.parametrize(
    ("pattern", "text", "wanted"),
    [
        ("yes", "oh yes, it is", PASSED),
        ("^yes$", "oh yes, it is", FAILED),
        (r"\p{Greek}", "the letter \u03bb", PASSED),
        ("(?i)YES", "yes", PASSED),
        ("(a+)+$", "a" * 20_000 + "b", FAILED),
        (r"^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 20_000, FAILED),
        ("x", "a lone surrogate \ud800", FAILED),
        ("x", "", FAILED),
    ],
)
def test_a_regular_expression_is_found_in_time_linear_in_the_answer(pattern: str, text: str, wanted: float) -> None:
    assert value_of(text, type="Regex", pattern=pattern) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('[{"id": 1}]', PASSED),
        (' \n[{"id": 1}, {"id": 2, "more": null}]\n', PASSED),
        ('[{"id": "1"}]', FAILED),
        ("[{}]", FAILED),
        ("{}", FAILED),
        ('Here it is: [{"id": 1}]', FAILED),
        ('```json\n[{"id": 1}]\n```', FAILED),
        ('[{"id": 1}', FAILED),
        ("", FAILED),
        ('[{"id": NaN}]', FAILED),
        ('[{"id": 1e999}]', FAILED),
        ("[" * 100_000, FAILED),
        ("9" * 5_000, FAILED),
    ],
)
def test_json_fits_a_schema_as_a_whole(text: str, wanted: float) -> None:
    assert value_of(text, type="JsonSchema", schema=LIST_OF_ITEMS) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        f"[{', '.join(['0'] * (MAX_VALUES - 1))}]",
        f'"{"a" * (MAX_CHARACTERS - 2)}"',
    ],
    ids=["deep", "many", "long"],
)
def test_json_beyond_a_limit_fails(text: str) -> None:
    assert value_of(text, type="JsonSchema", schema={}) == PASSED
    larger = {"[": f"[[{text[1:-1]}]]", '"': f'"{text[1:-1]}a"'}[text[0]]
    grown = larger if text[1] != "0" else f"[0, 0, {text[1:-1]}]"
    assert value_of(grown, type="JsonSchema", schema={}) == FAILED


def test_a_schema_that_branches_without_end_leaves_an_answer_undecided() -> None:
    """Each level asks twice for the next, but only inside lists, so that a scalar is decided at once."""
    levels = 60
    schema: dict[str, Any] = {"$ref": "#/$defs/0", "$defs": {str(levels): {"type": "string"}}}
    for level in range(levels):
        inner = {"items": {"$ref": f"#/$defs/{level + 1}"}}
        schema["$defs"][str(level)] = {"allOf": [inner, inner]}
    assert MAX_STEPS < 2**20
    assert value_of("7", type="JsonSchema", schema=schema) == PASSED
    assert math.isnan(value_of("[" * 20 + "]" * 20, type="JsonSchema", schema=schema))


def test_patterns_of_a_schema_do_not_hang_either() -> None:
    schema = {"type": "string", "pattern": "(a+)+$"}
    assert value_of(f'"{"a" * 20_000}b"', type="JsonSchema", schema=schema) == FAILED
    assert value_of('"aaa"', type="JsonSchema", schema=schema) == PASSED


@pytest.mark.parametrize(
    ("reward", "sentence"),
    [
        ({"type": "Regex", "pattern": "("}, r"rewards\[0\]\.pattern: the pattern '\(' cannot be used"),
        ({"type": "Regex", "pattern": "(?=a)b"}, "no lookaround"),
        ({"type": "Regex", "pattern": "((a{1000}){1000}){1000}"}, "cannot be used"),
        (
            {"type": "JsonSchema", "schema": {"type": "text"}},
            r"rewards\[0\]\.schema\['type'\].*Correct the JSON schema",
        ),
        ({"type": "JsonSchema", "schema": {"$ref": "https://example.com/s"}}, "only references inside the schema"),
        ({"type": "JsonSchema", "schema": {"$ref": "#/$defs/no"}}, "which it does not have"),
        ({"type": "JsonSchema", "schema": nested(MAX_SCHEMA_DEPTH + 1)}, r"schema is 33 levels deep"),
        ({"type": "JsonSchema", "schema": {"title": "a" * MAX_SCHEMA_CHARACTERS}}, "schema has 16396 characters"),
        ({"type": "JsonSchema", "schema": {"$ref": "#"}}, "does not come to an end"),
        ({"type": "JsonSchema", "schema": {"pattern": "("}}, r"schema, keyword pattern: the pattern"),
        ({"type": "JsonSchema", "schema": {"patternProperties": {"a": {}}}}, "patternProperties, which is not"),
        ({"type": "Language", "languages": ["xx"]}, r"rewards\[0\]\.languages: xx cannot be recognised"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_field(reward: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfigError, match=sentence):
        value_of("a", **reward)


@pytest.mark.parametrize(
    ("reward", "wanted"),
    [
        ({"max": 3}, PASSED),
        ({"max": 2}, FAILED),
        ({"min": 3}, PASSED),
        ({"min": 4}, FAILED),
        ({"unit": "Characters", "min": 5, "max": 5}, PASSED),
        ({"unit": "Characters", "min": 6}, FAILED),
    ],
)
def test_length_in_tokens_or_characters(reward: dict[str, Any], wanted: float) -> None:
    assert value_of("hello", tokens=3, type="Length", **reward) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The weather is rather pleasant this morning.", PASSED),
        ("Das Wetter ist heute Morgen recht angenehm.", FAILED),
        ("Ja.", UNDECIDED),
    ],
)
def test_language(text: str, wanted: float) -> None:
    assert same(value_of(text, type="Language", languages=["en"]), wanted)


@pytest.mark.parametrize(
    ("text", "column", "reward", "wanted"),
    [
        ("Paris", "Paris", {}, PASSED),
        (" New\n York ", "New York", {}, PASSED),
        ("paris", "Paris", {}, FAILED),
        ("It is Paris.", "Paris", {}, FAILED),
        ("So: #### Paris", "Paris", {"pattern": "#### (.*)"}, PASSED),
        ("So: Paris", "Paris", {"pattern": "#### (.*)"}, FAILED),
        ("It is 3 + 4 = 7.", "7", {"comparison": "Numeric"}, PASSED),
        ("It is 7 or 8", "7", {"comparison": "Numeric"}, FAILED),
        ("about 1,234.5", "1234.50", {"comparison": "Numeric"}, PASSED),
        ("between 5-3", "3", {"comparison": "Numeric"}, PASSED),
        ("minus -3", "3", {"comparison": "Numeric"}, FAILED),
        ("3.1", "3.14159", {"comparison": "Numeric", "tolerance": 0.05}, PASSED),
        ("3.1", "3.14159", {"comparison": "Numeric"}, FAILED),
        ("none", "7", {"comparison": "Numeric"}, FAILED),
        ("7", "seven", {"comparison": "Numeric"}, UNDECIDED),
        ("7", None, {}, UNDECIDED),
        ("7", None, {"pattern": "no"}, UNDECIDED),
    ],
)
def test_match_with_a_column(text: str, column: str | None, reward: dict[str, Any], wanted: float) -> None:
    columns = {} if column is None else {"answer": column}
    assert same(value_of(text, columns, type="Match", column="answer", **reward), wanted)


@pytest.mark.parametrize(("text", "wanted"), [("I am SORRY.", FAILED), ("I am glad.", PASSED), ("", PASSED)])
def test_forbidden_text(text: str, wanted: float) -> None:
    assert value_of(text, type="ForbiddenText", texts=["sorry", "as an AI"]) == wanted


def test_the_range_says_what_failing_and_passing_are_worth() -> None:
    reward: dict[str, Any] = {"type": "Regex", "pattern": "a", "range": {"low": -2, "high": 0.5}}
    assert [value_of(text, **reward) for text in ("a", "b")] == [0.5, -2.0]
    undecided: dict[str, Any] = {"type": "Match", "column": "c", "range": {"low": -2, "high": 0.5}}
    assert math.isnan(value_of("a", **undecided))


@pytest.mark.parametrize(
    ("judge", "judge_weight", "values", "weights", "wanted"),
    [
        (0.3, 1.0, {}, {}, 0.3),
        (0.3, 0.0, {}, {}, 0.3),
        (0.4, 1.0, {"a": 1.0}, {"a": 1.0}, 0.7),
        (0.4, 2.0, {"a": 1.0, "b": -1.0}, {"a": 1.0, "b": 1.0}, 0.2),
        (math.nan, 0.0, {"a": 1.0}, {"a": 2.0}, 1.0),
        (0.4, 1.0, {"a": math.nan}, {"a": 0.0}, 0.4),
        (math.nan, 1.0, {"a": 1.0}, {"a": 1.0}, math.nan),
        (0.4, 1.0, {"a": math.nan, "b": 1.0}, {"a": 0.1, "b": 1.0}, math.nan),
    ],
)
def test_the_reward_is_the_weighted_mean(
    judge: float, judge_weight: float, values: dict[str, float], weights: dict[str, float], wanted: float
) -> None:
    assert same(round(combine_rewards(judge, judge_weight, values, weights), 9), wanted)


def test_the_judges_share_of_the_weights() -> None:
    assert judge_share(1.0, {}) == 1.0
    assert judge_share(1.0, {"a": 1.0, "b": 2.0}) == 0.25
