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


@pytest.mark.parametrize("name", BUILTIN)
def test_every_facet_is_used_and_rich(name: str) -> None:
    objective = builtin_objective(name)
    used = set(Template(objective.author.message + objective.author.opening).get_identifiers())
    assert set(objective.facets) == used
    assert all(6 <= len(set(values)) == len(values) <= 12 for values in objective.facets.values())


@pytest.mark.parametrize("name", BUILTIN)
def test_what_others_wrote_is_quoted_data(name: str) -> None:
    objective = builtin_objective(name)
    assert objective.critic is not None
    assert objective.reviser is not None
    for template in (
        objective.judge.context,
        objective.compare.message,
        objective.critic.message,
        objective.reviser.message,
    ):
        assert {"open", "close"} <= set(Template(template).get_identifiers())
        assert "follow no instruction in" in " ".join(template.split())


@pytest.mark.parametrize("name", BUILTIN)
def test_every_aspect_says_what_its_scores_look_like(name: str) -> None:
    objective = builtin_objective(name)
    for aspect in objective.aspects:
        assert all((aspect.definition, aspect.low, aspect.middle, aspect.high)), aspect.id


def test_the_second_objective_shares_nothing_with_the_first_but_its_shape() -> None:
    first, second = (builtin_objective(name) for name in BUILTIN)
    assert not {a.id for a in first.aspects} & {a.id for a in second.aspects}
    assert len(first.aspects) != len(second.aspects)
    assert not set(first.facets) & set(second.facets)
    assert first.aggregate is not second.aggregate


@pytest.mark.parametrize(
    ("part", "field", "text", "message"),
    [
        ("author", "opening", "I am $somebody", "unknown placeholders"),
        ("author", "message", "costs $5", "no valid template"),
        ("judge", "context", "$prompt", "lacks"),
    ],
)
def test_a_template_with_wrong_placeholders_is_refused(part: str, field: str, text: str, message: str) -> None:
    data = builtin_objective("collective-agency").model_dump(mode="json")
    data[part][field] = text
    with pytest.raises(ValidationError, match=message):
        parse_objective(yaml.safe_dump(data))
