"""Prompts of the user's own over the iterations: dealt out, held out for good, and looked at by their own words."""

from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_contract.metrics import PromptsMetrics
from dynalign_contract.records import PromptRow
from dynalign_contract.settings import DecontaminationSettings, DedupSettings, PromptSettings, SuppliedPrompts
from dynalign_contract.supplied.paths import supplied_path
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.languages import LanguageFilter
from dynalign_trainer.prompts.curator import Checks, Curator
from dynalign_trainer.prompts.decontamination import Protected
from dynalign_trainer.prompts.drafts import Actor, Draft, Drop, Tally
from dynalign_trainer.prompts.measuring import measure
from dynalign_trainer.prompts.rows import supplied_row
from dynalign_trainer.prompts.shortage import explain_shortage
from dynalign_trainer.prompts.supplied import Chat, Supply, read_supply
from dynalign_trainer.prompts.wording import asked_words, read_wording

TUTOR = (
    "You are a careful tutor. Think step by step before you answer, show every step of your reasoning to the student, "
    "never give the result without its derivation, use simple words, name the rule that each step applies, check the "
    "units at the end, and put the final result alone on the last line after the words Final answer, so that a machine "
    "can read it and a person can find it at once."
)
QUESTIONS = (
    "How long does light take from the sun to the earth?",
    "Why does bread rise when it is left in a warm place?",
    "A train is late by ten minutes; how fast must it go?",
    "Which metals melt in a candle's flame, and why?",
)


def chat(question: str, system: str = "") -> Chat:
    user = Message(role="user", content=question)
    return (Message(role="system", content=system), user) if system else (user,)


def settings(path: Path, **fields: Any) -> PromptSettings:
    return PromptSettings(supplied=SuppliedPrompts(uri=str(path)), **fields)


def a_supply(folder: Path, rows: int, **fields: object) -> Supply:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(f'{{"prompt": "question {i}"}}' for i in range(rows)))
    return read_supply(settings(path, **fields), seed=3)


def held(supply: Supply) -> list[PromptRow]:
    found = supply.held_out()
    return [supplied_row(str(i), next(found)) for i in range(supply.amount.held_out)]


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.touch()
    assert supplied_path(str(path), "prompts.supplied", {}) == path


def test_a_link_that_leads_out_of_the_claim_is_refused(tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    (tmp_path / "mine.jsonl").touch()
    (tmp_path / "claim" / "mine.jsonl").symlink_to(tmp_path / "mine.jsonl")
    with pytest.raises(BadInputError, match=r"prompts.supplied.uri: .*leads out of .*claim"):
        supplied_path("pvc://claim/mine.jsonl", "prompts.supplied", {"DYNALIGN_PVC_ROOT": str(tmp_path)})


@pytest.mark.parametrize("uri", ["hf://org/data", "pvc://claim/../../etc/x.jsonl", "bundled://smollm2-135m-instruct"])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(BadConfigError, match=r"^prompts.supplied.uri is "):
        supplied_path(uri, "prompts.supplied", {})


def test_the_file_is_dealt_out_over_the_iterations(tmp_path: Path) -> None:
    supply = a_supply(tmp_path, 7, per_iteration=3, held_out=1)
    kept = held(supply)
    turns = [[c[0]["content"] for c in supply.training(kept, i)][:3] for i in range(3)]
    assert len(set(turns[0] + turns[1])) == 6
    assert turns[2] == turns[0]
    assert kept[0]["messages"][0]["content"] not in turns[0] + turns[1]


def test_what_is_held_out_is_never_trained_on_and_the_same_every_time(tmp_path: Path) -> None:
    supply = a_supply(tmp_path, 20)
    assert (supply.amount.held_out, supply.amount.training) == (4, 16)
    kept = held(supply)
    training = list(supply.training(kept, 0))
    assert len(training) == 16
    assert not [c for c in training if list(c) in [row["messages"] for row in kept]]
    assert held(a_supply(tmp_path, 20)) == kept


def test_every_row_is_a_candidate_so_that_dropped_ones_are_replaced(tmp_path: Path) -> None:
    supply = a_supply(tmp_path, 12, per_iteration=2, held_out=1)
    assert len(list(supply.held_out())) == 12
    assert len(list(supply.training(held(supply), 5))) == 11


def test_without_a_file_there_is_nothing() -> None:
    supply = read_supply(PromptSettings(), seed=1)
    assert (list(supply.held_out()), list(supply.training([], 0)), supply.amount.wanted) == ([], [], 0)


@pytest.mark.parametrize("system", [TUTOR, "", *(TUTOR + f" Today is day {i}." for i in range(2))])
def test_a_system_turn_that_all_rows_share_makes_no_duplicates(system: str) -> None:
    curator = Curator(DedupSettings())
    assert [curator.admit(read_wording(chat(question, system))) for question in QUESTIONS] == [None] * 4
    assert curator.admit(read_wording(chat(QUESTIONS[0], system))) is Drop.DUPLICATE
    near = QUESTIONS[0].replace("How", "how") + " Tell me."
    assert curator.admit(read_wording(chat(near, system))) is Drop.NEAR_DUPLICATE


def test_one_question_in_unlike_conversations_is_no_duplicate() -> None:
    curator = Curator(DedupSettings())
    earlier = [chat(question)[0]["content"] for question in QUESTIONS]
    chats = [
        (
            {"role": "user", "content": text},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "Why?"},
        )
        for text in earlier
    ]
    assert [curator.admit(read_wording(turns)) for turns in chats] == [None] * 4  # type: ignore[arg-type]


def test_a_system_turn_does_not_leak_what_the_evaluation_asks() -> None:
    benchmarks = Protected(DecontaminationSettings().words)
    benchmarks.add([asked_words(chat("What is the boiling point of water at sea level in winter?", TUTOR)), TUTOR])
    curator = Curator(DedupSettings(), Checks(benchmarks=benchmarks))
    assert curator.admit(read_wording(chat(QUESTIONS[0], TUTOR))) is None
    leak = chat("Tell me: what is the boiling point of water at sea level in winter?", TUTOR)
    assert curator.admit(read_wording(leak)) is Drop.CONTAMINATED


def test_what_a_benchmark_s_rows_share_is_not_protected() -> None:
    benchmarks = Protected(DecontaminationSettings().words)
    benchmarks.add([asked_words(chat(QUESTIONS[1], TUTOR))])
    assert not benchmarks.leaks(TUTOR)
    assert benchmarks.leaks(QUESTIONS[1])


def test_the_language_is_that_of_the_question() -> None:
    german = Curator(DedupSettings(), Checks(languages=LanguageFilter(["de"], "prompts.languages")))
    assert german.admit(read_wording(chat("Warum geht ein Brot im Warmen auf, und im Kalten nicht?", TUTOR))) is None
    assert german.admit(read_wording(chat(QUESTIONS[1], "Antworte immer freundlich und auf Deutsch."))) is Drop.LANGUAGE


def test_diversity_is_that_of_the_questions() -> None:
    def diversity(system: str) -> float | None:
        rows = [supplied_row(str(i), chat(question, system)) for i, question in enumerate(QUESTIONS)]
        return measure(rows, Tally(), facets={}, wanted=4)[PromptsMetrics.distinct_2]

    assert diversity(TUTOR) == diversity("")


def a_tally(hand: Actor, given: int, **dropped: int) -> Tally:
    tally = Tally()
    tally.of(hand).given = given
    for cause, number in dropped.items():
        for _ in range(number):
            tally.drop(hand, Drop[cause], Draft("some text", {}))
    return tally


@pytest.mark.parametrize(
    ("tally", "remedy", "silent"),
    [
        (a_tally(Actor.SUPPLIED, 8), "lower prompts.perIteration or add rows", "minScore"),
        (a_tally(Actor.SUPPLIED, 90, LONG=80), "raise prompts.maxTokens (and engine.maxLength", "perIteration"),
        (a_tally(Actor.SUPPLIED, 90, SHORT=80), "lower prompts.minCharacters", "maxTokens"),
        (a_tally(Actor.SUPPLIED, 90, NEAR_DUPLICATE=80), "raise prompts.dedup.threshold", "agents"),
        (a_tally(Actor.AUTHOR, 90, LOW_SCORE=80), "lower prompts.agents.critic.minScore", "supplied"),
        (a_tally(Actor.AUTHOR, 90, UNFINISHED=80), "raise prompts.agents.author.maxTokens", "minScore"),
        (a_tally(Actor.AUTHOR, 90, BUDGET=80), "raise the budget", "minScore"),
        (a_tally(Actor.AUTHOR, 9), "raise prompts.agents.author.draftsPerPrompt", "minScore"),
    ],
)
def test_every_cause_has_a_remedy_of_its_own(tally: Tally, remedy: str, silent: str) -> None:
    text = explain_shortage(settings(Path("/data/mine.jsonl")), "train", 8, 64, tally)
    assert remedy.lower() in text.lower()
    assert silent not in text.split("). ")[-1].replace("minYield", "")
    assert text.startswith("only 8 of 64 training prompts remain")


def test_the_columns_of_a_row_follow_its_chat(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"prompt": "How much is 3 + 4?", "answer": 7}\n'
        '{"prompt": "How much is 3 + 4?", "answer": 8}\n'
        '{"prompt": "Why?", "other": 1}\n'
    )
    supply = read_supply(settings(path), seed=3, columns=["answer"])
    assert [supply.columns_of(found) for found in supply.chats] == [{"answer": "7"}, {"answer": "7"}, {}]
    assert supply.columns_of(chat("Written by an agent?")) == {}
    assert read_supply(settings(path), seed=3).columns_of(supply.chats[0]) == {}
