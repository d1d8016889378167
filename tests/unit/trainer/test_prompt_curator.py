"""The curator keeps out what resembles an earlier prompt, and what has the wrong length."""

import pytest
from datasketch import MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign_contract.settings import DedupSettings
from dynalign_trainer.prompts.curator import Curator, check_length, lsh_shape, normalise, remember_all, shingles
from dynalign_trainer.prompts.drafts import Draft, Drop, Tally
from dynalign_trainer.prompts.writing import curate

BAKER = "I am a baker and my daughter misses me. How can I be at her school plays without losing the shop?"


@pytest.fixture
def curator() -> Curator:
    return Curator(DedupSettings(threshold=0.7, shingle_words=2))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (BAKER, Drop.DUPLICATE),
        (BAKER.upper(), Drop.DUPLICATE),
        (f"  {BAKER.replace('.', ' -')}!", Drop.DUPLICATE),
        (BAKER.replace("shop", "bakery"), Drop.NEAR_DUPLICATE),
        ("I am a baker and my flour is wet. What should I do?", None),
        ("", None),
    ],
)
def test_what_resembles_a_prompt_that_is_in_stays_out(curator: Curator, text: str, cause: Drop | None) -> None:
    assert curator.admit(BAKER) is None
    assert curator.admit(text) is cause


def test_earlier_and_held_out_prompts_keep_others_out(curator: Curator) -> None:
    remember_all(curator, [BAKER, BAKER])
    assert curator.admit(BAKER) is Drop.DUPLICATE


def test_what_stays_out_is_not_remembered(curator: Curator) -> None:
    near = BAKER.replace("shop", "bakery")
    curator.admit(BAKER)
    assert [curator.admit(near), curator.admit(near)] == [Drop.NEAR_DUPLICATE, Drop.NEAR_DUPLICATE]


def test_threshold_one_drops_equal_shingles_only() -> None:
    strict = Curator(DedupSettings(threshold=1.0, shingle_words=1))
    assert strict.admit("one two three four") is None
    assert strict.admit("one two three five") is None
    assert strict.admit("four three two one") is Drop.NEAR_DUPLICATE


@settings(deadline=None, max_examples=50)
@given(threshold=st.floats(0.01, 1.0), permutations=st.integers(16, 1024))
def test_every_allowed_setting_gives_an_index(threshold: float, permutations: int) -> None:
    bands, rows = lsh_shape(threshold, permutations)
    assert bands >= 2
    MinHashLSH(num_perm=permutations, params=(bands, rows))


def test_the_index_finds_pairs_at_the_threshold() -> None:
    bands, rows = lsh_shape(0.7, 128)
    assert 1 - (1 - 0.7**rows) ** bands >= 0.999


def test_words_decide() -> None:
    assert normalise("  Hello,\tWORLD! ") == "hello world"
    assert shingles("a b c", 2) == {"a b", "b c"}
    assert shingles("a b", 3) == {"a b"}


@pytest.mark.parametrize(
    ("text", "cause"),
    [("", Drop.UNFINISHED), ("Why?", Drop.SHORT), ("Why is it so?", None), ("Why is it so " * 3, Drop.LONG)],
)
def test_length_limits(text: str, cause: Drop | None) -> None:
    assert check_length(text, lambda t: len(t.split()), min_characters=8, max_tokens=8) is cause


def test_dropped_drafts_are_counted_and_quoted(curator: Curator) -> None:
    tally = Tally(drafts=5)
    drafts = [Draft(text, {}) for text in (BAKER, BAKER, "", "", "What is a good life for a cat?")]
    kept = curate(drafts, curator, lambda text: None if text else Drop.UNFINISHED, tally)
    assert [draft.text for draft in kept] == [BAKER, "What is a good life for a cat?"]
    assert tally.dropped == {Drop.DUPLICATE: 1, Drop.UNFINISHED: 2}
    assert tally.share(Drop.UNFINISHED) == 0.4
    assert "2 unfinished" in tally.explain()
    assert "baker" in tally.explain()
