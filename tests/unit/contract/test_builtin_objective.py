"""The objective that ships: it loads, is complete, and its templates hold together."""

from string import Template

import pytest
import yaml
from pydantic import ValidationError

from dynalign_contract.objective import BUILTIN, Aggregate, builtin_objective, parse_objective


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_objectives_load_under_their_names(name: str) -> None:
    assert builtin_objective(name).name == name


def test_collective_agency_has_its_four_aspects_and_never_a_sum() -> None:
    objective = builtin_objective("collective-agency")
    assert [aspect.id for aspect in objective.aspects] == ["knowledge", "benevolence", "power", "vitality"]
    assert objective.aggregate is Aggregate.GEOMETRIC_MEAN
    assert all(aspect.title in objective.rubric for aspect in objective.aspects)


def test_every_facet_is_used_and_rich() -> None:
    objective = builtin_objective("collective-agency")
    used = set(Template(objective.author.message + objective.author.opening).get_identifiers())
    assert set(objective.facets) == {"domain", "persona", "tension", "difficulty", "format"} == used
    assert all(6 <= len(set(values)) == len(values) <= 12 for values in objective.facets.values())


def test_the_candidate_is_quoted_data() -> None:
    objective = builtin_objective("collective-agency")
    for template in (objective.judge.context, objective.compare.message):
        assert {"open", "close"} <= set(Template(template).get_identifiers())


@pytest.mark.parametrize(
    ("part", "field", "text", "message"),
    [
        ("author", "opening", "I am $somebody", "unknown placeholders"),
        ("author", "message", "costs $5", "no valid template"),
        ("judge", "context", "$prompt", "lacks the placeholders"),
    ],
)
def test_a_template_with_wrong_placeholders_is_refused(part: str, field: str, text: str, message: str) -> None:
    data = builtin_objective("collective-agency").model_dump(mode="json")
    data[part][field] = text
    with pytest.raises(ValidationError, match=message):
        parse_objective(yaml.safe_dump(data))
