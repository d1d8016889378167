"""The verifiers beside the judge: which fields belong to which type, and what they need of the rest of the run."""

from collections.abc import Iterator, Sequence
from typing import Final

from pydantic.alias_generators import to_snake

from dynalign_contract.settings import RewardSettings, RewardType, read_columns
from dynalign_contract.supplied.rows import COLUMNS, SYSTEM_COLUMNS
from dynalign_operator.api.rules.rule import Rule
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec

_AT: Final = "spec.rewards[]"
_PROMPT_COLUMNS: Final = (*COLUMNS, *SYSTEM_COLUMNS)

_FIELDS: Final[dict[str, tuple[RewardType, ...]]] = {
    "pattern": (RewardType.REGEX, RewardType.MATCH),
    "schema": (RewardType.JSON_SCHEMA,),
    "unit": (RewardType.LENGTH,),
    "min": (RewardType.LENGTH,),
    "max": (RewardType.LENGTH,),
    "languages": (RewardType.LANGUAGE,),
    "column": (RewardType.MATCH,),
    "comparison": (RewardType.MATCH,),
    "texts": (RewardType.FORBIDDEN_TEXT,),
    "endpoint": (RewardType.HTTP,),
    "entryPoint": (RewardType.PYTHON,),
    "columns": (RewardType.HTTP, RewardType.PYTHON),
    "batchSize": (RewardType.HTTP, RewardType.PYTHON),
}
"""Field -> the types that it belongs to."""
_NEEDED: Final[dict[RewardType, tuple[str, ...]]] = {
    RewardType.REGEX: ("pattern",),
    RewardType.JSON_SCHEMA: ("schema",),
    RewardType.LENGTH: ("min", "max"),
    RewardType.LANGUAGE: ("languages",),
    RewardType.MATCH: ("column",),
    RewardType.FORBIDDEN_TEXT: ("texts",),
    RewardType.HTTP: ("endpoint",),
    RewardType.PYTHON: ("entryPoint",),
}
"""Type -> fields of which it needs one."""
_LISTS: Final = ("languages", "texts", "columns")


def _is_set(field: str) -> str:
    """CEL: whether a field is given."""
    return f"size(self.{field}) > 0" if field in _LISTS else f"has(self.{field})"


def _given(reward: RewardSettings, fields: Sequence[str]) -> bool:
    """Whether one of the fields is given."""
    values = [reward.json_schema if field == "schema" else getattr(reward, to_snake(field)) for field in fields]
    return any(value is not None and value != () for value in values)


def _foreign(field: str, types: Sequence[RewardType]) -> Rule:
    names = " or ".join(types)
    return Rule(
        at=_AT,
        field=field,
        cel=f"self.type in {[str(kind) for kind in types]} || !({_is_set(field)})",
        message=f"has an effect with type: {names} only; set type to {types[0]}, or remove {field}",
        holds=lambda reward: reward.type in types or not _given(reward, [field]),
    )


def _missing(kind: RewardType, fields: Sequence[str]) -> Rule:
    return Rule(
        at=_AT,
        field=fields[0],
        cel=f"self.type != '{kind}' || {' || '.join(map(_is_set, fields))}",
        message=f"is missing with type: {kind}; write {' or '.join(fields)}, or choose another type",
        holds=lambda reward: reward.type is not kind or _given(reward, fields),
    )


def _fields() -> Iterator[Rule]:
    yield from (_foreign(field, types) for field, types in _FIELDS.items())
    yield from (_missing(kind, fields) for kind, fields in _NEEDED.items())


def _has_columns(spec: AlignmentRunSpec) -> bool:
    return any(read_columns(reward) for reward in spec.rewards)


REWARD_RULES: Final = (
    *_fields(),
    Rule(
        at=_AT,
        field="range.low",
        cel="double(self.range.low) < double(self.range.high)",
        message="is not below range.high; lower it, or raise range.high",
        holds=lambda reward: reward.range.low < reward.range.high,
    ),
    Rule(
        at=_AT,
        field="min",
        cel="!has(self.min) || !has(self.max) || self.min <= self.max",
        message="is above max, so that no answer passes; lower it, or raise max",
        holds=lambda reward: reward.min is None or reward.max is None or reward.min <= reward.max,
    ),
    Rule(
        at=_AT,
        field="tolerance",
        cel="!has(self.tolerance) || (has(self.comparison) && self.comparison == 'Numeric')",
        message="has an effect with comparison: Numeric only; set comparison to Numeric, or remove tolerance",
        holds=lambda reward: reward.tolerance is None or reward.comparison == "Numeric",
    ),
    Rule(
        at=_AT,
        field="column",
        cel=f"!has(self.column) || !(self.column in {list(_PROMPT_COLUMNS)})",
        message="names a column that holds the prompt itself; name one that holds what the answer should say",
        holds=lambda reward: reward.column not in _PROMPT_COLUMNS,
    ),
    Rule(
        at=_AT,
        field="columns",
        cel=f"!self.columns.exists(x, x in {list(_PROMPT_COLUMNS)})",
        message="names a column that holds the prompt itself, which is sent as messages; remove it",
        holds=lambda reward: not any(column in _PROMPT_COLUMNS for column in reward.columns),
    ),
    Rule(
        at=_AT,
        field="columns",
        cel="self.columns.all(x, self.columns.exists_one(y, x == y))",
        message="names a column twice; name each once",
        holds=lambda reward: len(set(reward.columns)) == len(reward.columns),
    ),
    Rule(
        at="spec",
        field="rewards",
        cel="self.rewards.all(x, self.rewards.exists_one(y, x.name == y.name))",
        message="has two entries of the same name; give each a name of its own",
        holds=lambda spec: len({reward.name for reward in spec.rewards}) == len(spec.rewards),
    ),
    Rule(
        at="spec",
        field="rewards",
        cel="!self.rewards.exists(x, has(x.column) || size(x.columns) > 0) || has(self.prompts.supplied)",
        message="has an entry that reads a column, but there are no prompts of your own; add prompts.supplied, or "
        "remove it",
        holds=lambda spec: not _has_columns(spec) or spec.prompts.supplied is not None,
    ),
    Rule(
        at="spec",
        field="prompts.supplied.share",
        cel="!has(self.prompts.supplied) || double(self.prompts.supplied.share) == 1.0 || "
        "!self.rewards.exists(x, has(x.column) && double(x.weight) > 0.0)",
        message="is below 1, but prompts that agents write lack the columns that rewards reads, so that their answers "
        "would get no reward; write 1, or set the weight of that entry to 0",
        holds=lambda spec: (
            spec.prompts.supplied is None
            or spec.prompts.supplied.share == 1
            or not any(reward.column is not None and reward.weight > 0 for reward in spec.rewards)
        ),
    ),
    Rule(
        at="spec",
        field="judging.weight",
        cel="double(self.judging.weight) == 1.0 || size(self.rewards) > 0",
        message="has an effect beside rewards only; add rewards, or remove weight",
        holds=lambda spec: spec.judging.weight == 1 or bool(spec.rewards),
    ),
    Rule(
        at="spec",
        field="judging.weight",
        cel="double(self.judging.weight) > 0.0 || size(self.rewards) == 0 || "
        "self.rewards.exists(x, double(x.weight) > 0.0)",
        message="is 0, and so is the weight of all rewards; give one of them a weight above 0",
        holds=lambda spec: (
            spec.judging.weight > 0 or not spec.rewards or any(reward.weight > 0 for reward in spec.rewards)
        ),
    ),
)
