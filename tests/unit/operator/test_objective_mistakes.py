"""Typical mistakes in an objective of the user's own: each is answered by one sentence that names the field."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from dynalign_contract.objective import builtin_objective
from dynalign_operator.api.run_file import RunFileError, read_objective

Data = dict[str, Any]
HERE = "ConfigMap mine, key objective.yaml"


def broken(change: Callable[[Data], object]) -> str:
    """The text of a good objective after a change."""
    data = builtin_objective("helpful-honest-harmless").model_dump(mode="json", by_alias=True)
    change(data)
    return yaml.safe_dump(data, sort_keys=False)


def said_of(text: str) -> list[str]:
    with pytest.raises(RunFileError) as caught:
        read_objective(text, HERE)
    return [problem.text for problem in caught.value.problems]


MISTAKES: list[tuple[Callable[[Data], object], str]] = [
    (lambda d: d.pop("judge"), "judge is missing; write a mapping with context, question."),
    (lambda d: d.update(aspects=[]), "aspects has too few entries (0); give at least 1."),
    (lambda d: d.update(aspect=d.pop("aspects")), "aspects is missing; write a list, for example [a, b]."),
    (lambda d: d["aspects"][0].update(id="Helpful!"), 'aspects[0].id is "Helpful!"; write a lower-case word such as knowledge, at most 31 letters, digits and hyphens.'),
    (lambda d: d["aspects"][1].update(id="helpful"), "aspects: the ids helpful, helpful, harmless are not distinct; give every aspect an id of its own."),
    (lambda d: d["aspects"][2].pop("definition"), "aspects[2].definition is missing; write a text."),
    (lambda d: d.update(aggregate="Average"), 'aggregate is "Average"; write one of GeometricMean, Mean, Minimum.'),
    (lambda d: d.update(name="My Objective"), 'name is "My Objective"; write lower-case letters, digits and inner hyphens, for example house-style.'),
    (lambda d: d["judge"].update(context="$prompt"), "judge.context lacks $candidate; without it nobody sees what this is about."),
    (lambda d: d["judge"].update(question="How much $titel?"), "judge.question uses unknown placeholders: $titel; allowed are $definition, $high, $low, $middle, $title."),
    (lambda d: d["author"].update(message="About $theme."), "author.message uses unknown placeholders: $theme; allowed are $asker, $catch, $form, $preamble, $topic."),
    (lambda d: d["author"].update(message="It costs $5."), "author.message is no valid template: write $$ for a dollar sign and $name for a placeholder."),
    (lambda d: d["facets"].update(topic=[]), "facets: topic has no values; give it some, or remove it."),
    (lambda d: d["critic"].update(criteria={}), "critic.criteria has too few entries (0); give at least 1."),
    (lambda d: d["critic"].update(criteria=["Is it clear?"]), "critic.criteria is a list; write a mapping of names to values."),
    (lambda d: d["reviser"].update(message="Mend it."), "reviser.message lacks $prompt; without it nobody sees what this is about."),
    (lambda d: d["compare"].update(message="$prompt $a"), "compare.message lacks $b; without it nobody sees what this is about."),
    (lambda d: d.update(version=2), 'version is 2; write a text.'),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), MISTAKES, ids=[sentence[:34] for _, sentence in MISTAKES])
def test_a_mistake_is_named(change: Callable[[Data], object], sentence: str) -> None:
    assert f"{HERE}: {sentence}" in said_of(broken(change))


def test_a_misspelt_field_is_guessed() -> None:
    def misspell(data: Data) -> None:
        data["preambel"] = data.pop("preamble")

    assert f"{HERE}: preambel is unknown; did you mean preamble?" in said_of(broken(misspell))


def test_nothing_is_wrong_with_the_good_one() -> None:
    assert read_objective(broken(lambda data: None), HERE).name == "helpful-honest-harmless"
