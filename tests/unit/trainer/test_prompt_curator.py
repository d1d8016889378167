"""The curator keeps out what resembles an earlier prompt, and what has the wrong length."""

import random
from pathlib import Path

import pytest
from datasketch import MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign_contract.objective import BUILTIN, builtin_objective
from dynalign_contract.settings import DecontaminationSettings, DedupSettings
from dynalign_trainer.prompts.author import seeded_opening
from dynalign_trainer.prompts.curator import Checks, Curator, check_length, lsh_shape
from dynalign_trainer.prompts.decontamination import Protected
from dynalign_trainer.prompts.drafts import Actor, Draft, Drop, Tally
from dynalign_trainer.prompts.normalising import normalise, runs
from dynalign_trainer.prompts.seeds import sample_seeds
from dynalign_trainer.prompts.task_texts import own_task_texts, read_task_texts
from dynalign_trainer.prompts.wording import written_wording
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
    assert curator.admit(written_wording(BAKER)) is None
    assert curator.admit(written_wording(text)) is cause


def test_earlier_and_held_out_prompts_keep_others_out(curator: Curator) -> None:
    curator.remember(written_wording(BAKER))
    curator.remember(written_wording(BAKER))
    assert curator.admit(written_wording(BAKER)) is Drop.DUPLICATE


def test_what_stays_out_is_not_remembered(curator: Curator) -> None:
    near = BAKER.replace("shop", "bakery")
    curator.admit(written_wording(BAKER))
    assert [curator.admit(written_wording(near)), curator.admit(written_wording(near))] == [
        Drop.NEAR_DUPLICATE,
        Drop.NEAR_DUPLICATE,
    ]


def test_threshold_one_drops_equal_shingles_only() -> None:
    strict = Curator(DedupSettings(threshold=1.0, shingle_words=1))
    assert strict.admit(written_wording("one two three four")) is None
    assert strict.admit(written_wording("one two three five")) is None
    assert strict.admit(written_wording("four three two one")) is Drop.NEAR_DUPLICATE


@settings(max_examples=50)
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
    assert runs("a b c", 2) == {"a b", "b c"}
    assert runs("a b", 3) == {"a b"}


@pytest.mark.parametrize(
    ("text", "cause"),
    [("", Drop.UNFINISHED), ("Why?", Drop.SHORT), ("Why is it so?", None), ("Why is it so " * 3, Drop.LONG)],
)
def test_length_limits(text: str, cause: Drop | None) -> None:
    assert check_length(text, lambda t: len(t.split()), min_characters=8, max_tokens=8) is cause


def test_dropped_drafts_are_counted_and_quoted(curator: Curator) -> None:
    tally = Tally()
    tally.of(Actor.AUTHOR).given = 5
    drafts = [
        Draft(text, {}, draft_id=f"train-0-{i}")
        for i, text in enumerate((BAKER, BAKER, "", "", "What is a good life for a cat?"))
    ]
    kept = curate(drafts, curator, lambda text: None if text else Drop.UNFINISHED, tally)
    assert [draft.text for draft in kept] == [BAKER, "What is a good life for a cat?"]
    assert tally.of(Actor.CURATOR).dropped == {Drop.DUPLICATE: 1, Drop.UNFINISHED: 2}
    assert (tally.of(Actor.CURATOR).given, tally.of(Actor.CURATOR).kept) == (5, 2)
    assert tally.share(Drop.UNFINISHED) == 0.4
    assert "2 unfinished" in tally.explain()
    assert "baker" in tally.explain()
    outcomes = [(row["draft_id"], row["agent"], row["outcome"]) for row in tally.draft_rows({})]
    assert outcomes[:3] == [
        ("train-0-0", "curator", "kept"),
        ("train-0-1", "curator", "duplicate"),
        ("train-0-2", "curator", "unfinished"),
    ]


def test_a_mended_text_may_resemble_what_it_was_made_from_and_nothing_else(curator: Curator) -> None:
    revised = BAKER.replace("shop", "bakery")
    curator.admit(written_wording(BAKER))
    curator.admit(written_wording("I am a baker and my flour is wet. What should I do?"))
    assert curator.replace(BAKER, written_wording(revised, revised)) is None
    assert curator.admit(written_wording(BAKER)) is Drop.NEAR_DUPLICATE
    assert (
        curator.replace(revised, written_wording("I am a baker, and my flour is wet! What should I do?"))
        is Drop.DUPLICATE
    )
    assert curator.admit(written_wording(revised)) is Drop.DUPLICATE


def test_what_the_evaluation_asks_does_not_come_in() -> None:
    strict = Curator(DedupSettings(), Checks(held_out=Protected(4)))
    strict.protect(["How many eggs does a hen lay in a year?"])
    leaking = "Tell me: how many eggs does a goose lay?"
    assert strict.admit(written_wording(leaking, leaking)) is Drop.CONTAMINATED
    assert strict.admit(written_wording("Tell me how many eggs there are.", "Tell me how many eggs there are.")) is None
    opening = "I ask how many eggs does my neighbour need"
    assert strict.admit(written_wording(f"{opening} for a cake?", " for a cake?")) is None


def test_a_benchmark_keeps_out_whoever_wrote_the_prompt() -> None:
    benchmarks = Protected(4)
    benchmarks.add(["How many eggs does a hen lay in a year?"])
    strict = Curator(DedupSettings(), Checks(benchmarks=benchmarks, held_out=Protected(4)))
    assert strict.admit(written_wording("Tell me: how many eggs does a goose lay?")) is Drop.CONTAMINATED


def test_the_users_prompts_may_share_phrases_with_held_out_ones() -> None:
    strict = Curator(DedupSettings(), Checks(held_out=Protected(4)))
    strict.protect(["You are a friendly cook. How long do I boil an egg?"])
    assert strict.admit(written_wording("You are a friendly cook. What goes with rice?")) is None


def test_short_texts_and_zero_words_protect_nothing() -> None:
    short, off = Protected(4), Protected(0)
    short.add(["too short now"])
    off.add(["a b c d e f"])
    assert not short.leaks("too short now and then")
    assert not off.leaks("a b c d e f")


def test_the_items_of_shipped_tasks_are_what_a_model_reads_of_them(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"prompt": "Write five words.", "checks": [1]}\n\n')
    (tmp_path / "a.jsonl").write_text('{"question": "What is 2 + 2?", "choices": ["4"], "answer": 0}\n{"id": 7}\n')
    (tmp_path / "a.yaml").write_text("task: x")
    assert read_task_texts(tmp_path) == ["What is 2 + 2?", "Write five words."]
    assert read_task_texts(tmp_path / "absent") == []


def test_no_seed_of_a_shipped_objective_opens_with_what_a_shipped_task_asks() -> None:
    protected = Protected(DecontaminationSettings().words)
    protected.add(own_task_texts())
    for name in BUILTIN:
        objective = builtin_objective(name)
        for seed in sample_seeds(objective.facets, 50, random.Random(0)):
            assert not protected.leaks(seeded_opening(objective, seed))
