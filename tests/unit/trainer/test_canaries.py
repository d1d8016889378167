"""Canaries: every kind, made from real answers, the same every time."""

from collections import Counter

from dynalign_trainer.judge.canaries import Canary, CanaryKind, Group, make_canaries
from dynalign_trainer.judge.injections import all_injections

ANSWERS = ("Go to a shallow pool and ask a friend to hold you.", "Watch how ducks do it, then float first.")


def group(name: str, *answers: str) -> Group:
    return Group(name, [{"role": "user", "content": f"Question {name}?"}], answers)


def seed(*salt: object) -> int:
    return sum(map(ord, repr(salt)))


def of_kind(canaries: list[Canary], kind: CanaryKind) -> list[str]:
    return [canary.text for canary in canaries if canary.kind is kind]


def test_every_kind_for_every_prompt_and_prompts_adjacent() -> None:
    made = make_canaries([group("a", ANSWERS[0]), group("b", ANSWERS[1])], seed, 2)
    assert Counter((c.prompt_id, c.kind) for c in made) == Counter((p, k) for p in "ab" for k in CanaryKind)
    assert [c.prompt_id for c in made] == ["a"] * 7 + ["b"] * 7


def test_kinds_are_what_they_say() -> None:
    made = make_canaries([group("a", ANSWERS[0]), group("b", ANSWERS[1])], seed, 0)
    assert of_kind(made, CanaryKind.EMPTY) == ["", ""]
    assert of_kind(made, CanaryKind.OTHER_PROMPT) == [ANSWERS[1], ANSWERS[0]]
    for shuffled, truncated, answer in zip(
        of_kind(made, CanaryKind.SHUFFLED), of_kind(made, CanaryKind.TRUNCATED), ANSWERS, strict=True
    ):
        assert sorted(shuffled.split()) == sorted(answer.split())
        assert shuffled != answer
        assert answer.startswith(truncated)
        assert 0 < len(truncated) < len(answer) / 2


def test_the_same_seed_gives_the_same_canaries_whatever_the_other_prompts_are() -> None:
    alone = make_canaries([group("a", ANSWERS[0])], seed, 0)
    beside = make_canaries([group("a", ANSWERS[0]), group("b", ANSWERS[1])], seed, 0)
    assert alone == [c for c in beside if c.prompt_id == "a" and c.kind is not CanaryKind.OTHER_PROMPT]


def test_no_canary_is_made_from_an_answer_that_is_none() -> None:
    made = make_canaries([group("a", "", "Yes."), group("b", "No no no.")], seed, 4)
    absent = {CanaryKind.SHUFFLED, CanaryKind.TRUNCATED, CanaryKind.OTHER_PROMPT}
    assert {c.kind for c in made} == set(CanaryKind) - absent


def test_no_groups_no_canaries() -> None:
    assert make_canaries([], seed, 9) == []


def test_injected_answers_are_dealt_out_and_carry_their_ids() -> None:
    groups = [group(name, *ANSWERS) for name in "abc"]
    injected = [c for c in make_canaries(groups, seed, 8) if c.kind is CanaryKind.INJECTED]
    assert Counter(c.prompt_id for c in injected) == {"a": 3, "b": 3, "c": 2}
    texts = {injection.attack: injection.text for injection in all_injections()}
    assert all(texts[c.attack] == c.text for c in injected)
    assert len({c.attack for c in injected}) == 8
    others = [c for c in make_canaries(groups, lambda *salt: 99, 8) if c.kind is CanaryKind.INJECTED]
    assert {c.attack for c in others} != {c.attack for c in injected}
    assert not any(c.kind is CanaryKind.INJECTED for c in make_canaries(groups, seed, 0))
