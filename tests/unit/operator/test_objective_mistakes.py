"""Typical mistakes in an objective of the user's own: each is answered by one sentence that names the field."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from dynalign_contract.objective import Objective, builtin_objective
from dynalign_operator.planning.errors import BadObjectiveError
from dynalign_operator.planning.objectives import read_objective as objective_of
from dynalign_operator.planning.observed import Observed
from dynalign_operator.runfile import run_file
from dynalign_operator.runfile.objective_text import LARGEST_OBJECTIVE_BYTES
from dynalign_operator.runfile.run_file import RunFileError, read_objective
from support.builders import a_run

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
    (lambda d: d["judge"].update(context="$prompt"), "judge.context lacks $candidate; without it the text does not say what this is about."),
    (lambda d: d["judge"].update(question="How much $titel?"), "judge.question uses unknown placeholders: $titel; allowed are $definition, $high, $low, $middle, $title."),
    (lambda d: d["author"].update(message="About $theme."), "author.message uses unknown placeholders: $theme; allowed are $asker, $catch, $form, $preamble, $topic."),
    (lambda d: d["author"].update(message="It costs $5."), "author.message is no valid template: write $$ for a dollar sign and $name for a placeholder."),
    (lambda d: d["facets"].update(topic=[]), "facets: topic has no values; give it some, or remove it."),
    (lambda d: d["facets"].update(preamble=["x"]), "facets: preamble is the placeholder of the objective's own preamble; take another name."),
    (lambda d: d["critic"].update(criteria={}), "critic.criteria has too few entries (0); give at least 1."),
    (lambda d: d["critic"].update(criteria=["Is it clear?"]), "critic.criteria is a list; write a mapping of names to values."),
    (lambda d: d["reviser"].update(message="Mend it."), "reviser.message lacks $prompt; without it the text does not say what this is about."),
    (lambda d: d["compare"].update(message="$prompt $a"), "compare.message lacks $b; without it the text does not say what this is about."),
    (lambda d: d.update(version=2), 'version is 2, which YAML reads as a number; write "2", in quotes.'),
    (lambda d: d["judge"].update(context="$prompt $candidate" + "x" * 8000), "judge.context is too long; write at most 8000 characters."),
    (lambda d: d["facets"].update(topic=["x" * 501]), "facets.topic[0] is too long; write at most 500 characters."),
    (lambda d: d["critic"].update(criteria={f"c{i}": "Is it?" for i in range(17)}), "critic.criteria has too many entries (17); give at most 16."),
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


def test_a_large_text_is_refused_before_it_is_parsed() -> None:
    text = broken(lambda data: None) + "#" * LARGEST_OBJECTIVE_BYTES
    (said,) = said_of(text)
    assert f"the text has {len(text):,} bytes; write at most {LARGEST_OBJECTIVE_BYTES:,}" in said


BOMB = "a: &a [" + "x, " * 9000 + "x]\nfacets: {b: [" + "*a, " * 9000 + "*a]}\n"
"""63 kB whose aliases, written out, are 81 million values."""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB, "line 1: the text uses the YAML anchor &a; write the value out where it is needed."),
        ("name: x\nfacets: *f\n", "line 2: the text uses the YAML anchor *f; write the value out where it is needed."),
    ],
    ids=["a bomb", "an alias of nothing"],
)
def test_anchors_and_aliases_are_refused_before_anything_is_written_out(text: str, sentence: str) -> None:
    assert said_of(text) == [f"{HERE}, {sentence}"]


def test_a_sign_within_a_text_is_no_anchor() -> None:
    data = broken(lambda d: d.update(preamble='R&D *matters* & so on: "&x *y"'))
    assert read_objective(data, HERE).preamble.startswith("R&D")


def test_a_text_is_parsed_once_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def parse(text: str, where: str) -> Objective:
        parsed.append(text)
        return read_objective(text, where)

    monkeypatch.setattr(run_file, "read_objective", parse)
    run = a_run().with_spec(objective={"configMapRef": {"name": "mine"}}).build()
    good, bad = broken(lambda d: d.update(version="once")), broken(lambda d: d.update(version=17))
    for _ in range(3):
        assert objective_of(Observed(run, (), {"mine": {"objective.yaml": good}})).version == "once"
        with pytest.raises(BadObjectiveError, match="version cannot be used as it is; write a text"):
            objective_of(Observed(run, (), {"mine": {"objective.yaml": bad}}))
    assert parsed == [good, bad]
