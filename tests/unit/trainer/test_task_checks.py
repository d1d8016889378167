"""The shipped tasks: every item can be passed and failed, and checks mean what the prompts say."""

import json
from collections import Counter
from importlib import resources

import pytest

from dynalign_trainer.tasks.own.checks import KINDS, Check, count_sentences, count_words, keeps_all

PACKAGE = resources.files("dynalign_trainer.tasks.own")


def items(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in PACKAGE.joinpath(name).read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "value", "kept", "broken"),
    [
        ("words_at_most", "2", "Cold snow", "Cold white snow"),
        ("words_at_most", "3", "It's well-known, isn't", "One two three four"),
        ("words_at_least", "2", "Two words", "One"),
        ("sentences", "2", "It rains. We stay (at home!)", "It rains. We stay. We sleep."),
        ("sentences", "1", "Pi is 3.14, they say", "One. Two"),
        ("lines", "2", "a\nb", "a\n\nb"),
        ("bullets", "2", "- a\n- b", "- a\nb"),
        ("bullets", "1", "* a", "-a"),
        ("numbered", "2", "1. a\n2) b", "1. a"),
        ("case", "upper", "STOP, 3 METRES!", "STOP now"),
        ("case", "lower", "quiet, please", "Quiet"),
        ("contains", "drum", "Drums beat", "conundrum"),
        ("lacks", "hot", "a photo", "Hot!"),
        ("lacks_text", ",", "one two", "one, two"),
        ("lacks_text", "z", "bread", "Zest"),
        ("starts", "Yes", "Yes, it is", "Oh yes"),
        ("ends", "That is all.", "Time. That is all.", "That is all."),
        ("json", "name,age", '{"age": 3, "name": "x"}', '{"name": "x"}'),
        ("json", "capital", '{"capital": "Rome"}', 'Sure: {"capital": "Rome"}'),
        ("json", "capital", '{"capital": "Rome"}', '["capital"]'),
        ("json", "capital", '{"capital": "Rome"}', "[" * 100_000),
        ("digits", "True", "7.", "seven"),
    ],
)
def test_kinds(kind: str, value: str, kept: str, broken: str) -> None:
    assert keeps_all(f"\n{kept}\n", [Check(kind, value)])
    assert not keeps_all(broken, [Check(kind, value)])


def test_all_checks_of_an_item_count_and_silence_passes_none() -> None:
    both = [Check("case", "lower"), Check("words_at_most", "3")]
    assert keeps_all("all is well", both)
    assert not keeps_all("All is well", both)
    assert not keeps_all("all is well here", both)
    assert not keeps_all("  \n", [Check("lacks", "hot")])


def test_counts() -> None:
    assert count_words("Don't stop the well-known fox_trot — 3 times") == 8
    assert count_sentences('He said: "Stop!" Then he left...') == 2


def test_choices_are_whole_and_their_answers_spread_evenly() -> None:
    found = items("choices.jsonl")
    assert len(found) == len({item["question"] for item in found}) == 72
    for item in found:
        choices = item["choices"]
        assert isinstance(choices, list)
        assert len(set(choices)) == 4
        assert all(choice and choice == choice.strip() for choice in choices)
    assert Counter(item["answer"] for item in found) == dict.fromkeys(range(4), 18)


def test_instructions_are_distinct_and_every_kind_of_check_is_used() -> None:
    found = items("instructions.jsonl")
    assert len(found) == len({item["prompt"] for item in found}) == 64
    kinds = {kind for item in found for kind, _ in item["checks"]}  # type: ignore[attr-defined]
    assert kinds == KINDS.keys()


def test_no_single_answer_passes_more_than_a_few_instructions() -> None:
    """A model that has learnt to say one thing, whatever it is asked, has not learnt to follow instructions."""
    found = items("instructions.jsonl")
    for answer in ("ok", "Yes", "OK", "7", "- a\n- b", "I cannot help with that."):
        kept = sum(keeps_all(answer, [Check(*check) for check in item["checks"]]) for item in found)  # type: ignore[attr-defined]
        assert kept <= len(found) / 3, answer
