"""What is left of an author's answer, and what it is seeded with."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.errors import BadConfigError
from dynalign_contract.objective import BUILTIN, builtin_objective
from dynalign_trainer.prompts.author import clean, seeded_opening
from dynalign_trainer.prompts.seeds import facet_coverage, merge_facets, sample_seeds

OPENING = "I am a nurse. How can I"
FACETS = {"persona": ("a nurse", "a baker", "a mayor"), "domain": ("health", "money")}


@pytest.mark.parametrize(
    ("opening", "continuation", "finished", "prompt"),
    [
        ("", "How can I help?", True, "How can I help?"),
        ("", '\n "How can I help?" ', True, "How can I help?"),
        ("", "**How can I help?**", True, "How can I help?"),
        ("", "“How can I help?”", True, "How can I help?"),
        ("", 'He said "no" to me. What now?"', True, 'He said "no" to me. What now?"'),
        ("", 'How can I help?"', True, "How can I help?"),
        ("", "How can I help?\n\nThis is a question about help.", True, "How can I help?"),
        ("", "How can I help? And how", True, "How can I help?"),
        ("", "My son is ill. Tell me what I should do now", True, "My son is ill. Tell me what I should do now"),
        ("", "My son is ill. Tell me what I should do now", False, "My son is ill."),
        ("", "Tell me what I should do now", True, "Tell me what I should do now"),
        ("", "Tell me what I should do now", False, ""),
        ("", "", True, ""),
        (OPENING, " rest more?", True, "I am a nurse. How can I rest more?"),
        (OPENING, " rest more when the", False, ""),
        (OPENING, "", True, ""),
        (OPENING, "\n\nrest more?", True, ""),
        (OPENING, "'t rest? \"", True, "I am a nurse. How can I't rest?"),
        ("", "価格は1.5倍？はい", True, "価格は1.5倍？はい"),  # noqa: RUF001 - full-width marks are the point
    ],
)
def test_cleaning(opening: str, continuation: str, finished: bool, prompt: str) -> None:
    assert clean(opening, continuation, finished=finished) == prompt


@given(text=st.text(max_size=80), finished=st.booleans())
def test_cleaning_never_breaks_a_line(text: str, finished: bool) -> None:
    cleaned = clean("", text, finished=finished)
    assert "\n" not in cleaned
    assert cleaned == cleaned.strip()


@given(count=st.integers(0, 40), seed=st.integers(0, 99))
def test_values_are_dealt_evenly(count: int, seed: int) -> None:
    seeds = sample_seeds(FACETS, count, random.Random(seed))
    assert len(seeds) == count
    for name, values in FACETS.items():
        dealt = Counter(s[name] for s in seeds)
        assert all(count // len(values) <= dealt[value] <= -(-count // len(values)) for value in values)


def test_seeds_depend_on_the_generator_only() -> None:
    assert sample_seeds(FACETS, 9, random.Random(1)) == sample_seeds(FACETS, 9, random.Random(1))
    assert sample_seeds(FACETS, 9, random.Random(1)) != sample_seeds(FACETS, 9, random.Random(2))


def test_coverage_is_the_mean_over_facets() -> None:
    seeds = [{"persona": "a nurse", "domain": "health"}, {"persona": "a nurse", "domain": "money"}]
    assert facet_coverage(FACETS, seeds) == pytest.approx((1 / 3 + 1) / 2)
    assert facet_coverage({}, []) is None


def test_the_run_file_replaces_values() -> None:
    assert merge_facets(FACETS, {"domain": ("sea",)}) == {"persona": FACETS["persona"], "domain": ("sea",)}


@pytest.mark.parametrize(("replaced", "named"), [({"color": ("red",)}, "color"), ({"domain": ()}, "domain")])
def test_unknown_and_empty_facets_are_refused(replaced: dict[str, tuple[str, ...]], named: str) -> None:
    with pytest.raises(BadConfigError, match=rf"prompts\.seeds\.facets\.{named}"):
        merge_facets(FACETS, replaced)


def test_an_opening_may_hold_every_placeholder_that_it_is_allowed() -> None:
    objective = builtin_objective(BUILTIN[0])
    facet = next(iter(objective.facets))
    author = objective.author.model_copy(update={"opening": f"$preamble ${facet}: "})
    changed = objective.model_copy(update={"author": author, "preamble": "Be good."})
    assert seeded_opening(changed, {facet: "health"}) == "Be good. health: "
