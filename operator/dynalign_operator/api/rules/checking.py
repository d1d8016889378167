"""Whether a run, or its update, keeps the rules: those of the CRD, for `dynalign validate` and `dynalign run`."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

from pydantic.alias_generators import to_snake

from dynalign_operator.api.field_path import FieldPath
from dynalign_operator.api.rules.rule import Rule, Transition
from dynalign_operator.api.v1alpha1 import AlignmentRun

_attribute_name: Final = cache(to_snake)
"""Rules name few fields, and every run is held against all rules."""


def broken_rules(run: AlignmentRun, rules: Sequence[Rule]) -> Iterator[tuple[FieldPath, Rule]]:
    """Every rule that a run breaks, with the field that its message is about."""
    for rule in rules:
        for path, node in _objects(run, (), rule.at):
            if not rule.holds(node):
                yield (*path, *rule.field.split(".")) if rule.field else path, rule


def broken_transitions(
    old: AlignmentRun, new: AlignmentRun, transitions: Sequence[Transition]
) -> Iterator[tuple[FieldPath, Transition]]:
    """Every rule between an applied run and its update that the update breaks, with the field."""
    for transition in transitions:
        before, after = dict(_objects(old, (), transition.at)), dict(_objects(new, (), transition.at))
        for path in before.keys() & after.keys():
            if not transition.holds(before[path], after[path]):
                yield path, transition


def _objects(model: Any, path: FieldPath, at: str) -> Iterator[tuple[FieldPath, Any]]:
    """Every object of a run that a rule's path names."""
    if model is None:
        return
    if not at:
        yield path, model
        return
    head, _, rest = at.partition(".")
    name = head.removesuffix("[]")
    fields = type(model).model_fields
    names = list(fields) if name == "*" else [name if name in fields else _attribute_name(name)]
    for attribute in names:
        child, here = getattr(model, attribute), (*path, fields[attribute].alias or attribute)
        if head.endswith("[]"):
            for index, item in enumerate(child):
                yield from _objects(item, (*here, index), rest)
        else:
            yield from _objects(child, here, rest)
