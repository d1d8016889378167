"""The choice among drafts: the best, spread evenly over what they were seeded with."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_trainer.prompts.choosing import choose_drafts, evenness
from dynalign_trainer.prompts.drafts import Draft

FACETS = {"domain": ("health", "money"), "tone": ("calm", "urgent", "sad")}


def drafts(*scores: float, domain: str = "health") -> list[Draft]:
    return [Draft(f"{domain} {i}", {"domain": domain, "tone": "calm"}, score) for i, score in enumerate(scores)]


def texts(found: list[Draft]) -> list[str]:
    return [draft.text for draft in found]


def test_without_balance_the_best_are_kept_in_their_own_order() -> None:
    assert texts(choose_drafts(drafts(1.0, 5.0, 3.0, 4.0), 2, FACETS, 0)) == ["health 1", "health 3"]


def test_ties_go_to_the_earlier_and_unscored_ones_come_last() -> None:
    assert texts(choose_drafts(drafts(2.0, 2.0, 2.0), 2, FACETS, 0)) == ["health 0", "health 1"]
    assert texts(choose_drafts(drafts(math.nan, 0.0, math.nan), 2, FACETS, 0)) == ["health 0", "health 1"]
    assert len(choose_drafts(drafts(1.0), 5, FACETS, 1)) == 1


def test_balance_gives_up_some_score_for_evenness_and_no_more() -> None:
    near = drafts(5.0, 5.0, 5.0, 5.0) + drafts(4.8, 4.8, domain="money")
    far = drafts(8.0, 8.0, 8.0, 8.0) + drafts(1.0, 1.0, domain="money")
    assert Counter(text.split()[0] for text in texts(choose_drafts(near, 4, FACETS, 1))) == {"health": 2, "money": 2}
    assert Counter(text.split()[0] for text in texts(choose_drafts(far, 4, FACETS, 1))) == {"health": 4}
    assert Counter(text.split()[0] for text in texts(choose_drafts(near, 4, FACETS, 0))) == {"health": 4}


POOL = st.lists(
    st.builds(
        lambda score, domain, tone: Draft("x", {"domain": domain, "tone": tone}, score),
        st.sampled_from([math.nan, 0.0, 2.0, 4.5, 4.6, 9.0]),
        st.sampled_from(FACETS["domain"]),
        st.sampled_from(FACETS["tone"]),
    ),
    max_size=14,
)


@given(POOL, st.integers(1, 9), st.sampled_from([0.0, 0.5, 1.0, 9.0]))
def test_the_heap_takes_what_a_plain_greedy_search_takes(pool: list[Draft], wanted: int, balance: float) -> None:
    taken: Counter[str] = Counter()
    left = list(range(len(pool)))
    plain: list[int] = []

    def worth(i: int) -> tuple[bool, float, int]:
        draft = pool[i]
        used = [taken[draft.seed[name]] * len(values) / wanted for name, values in FACETS.items()]
        score = draft.score if math.isfinite(draft.score) else 0.0
        return not math.isfinite(draft.score), -(score - balance * math.fsum(used) / 2), i

    while left and len(plain) < wanted:
        best = min(left, key=worth)
        left.remove(best)
        plain.append(best)
        taken.update(pool[best].seed.values())
    assert [id(draft) for draft in choose_drafts(pool, wanted, FACETS, balance)] == [id(pool[i]) for i in sorted(plain)]


@pytest.mark.parametrize(
    ("domains", "expected"),
    [(["health", "money"], 1.0), (["health"] * 4, 0.0), (["health", "health", "health", "money"], 0.8113)],
)
def test_evenness_is_the_entropy_over_its_greatest(domains: list[str], expected: float) -> None:
    found = evenness({"domain": FACETS["domain"]}, [{"domain": domain} for domain in domains])
    assert found == pytest.approx(expected, abs=1e-4)


def test_evenness_of_nothing_is_nothing() -> None:
    assert evenness(FACETS, []) is None
    assert evenness({"one": ("a",)}, [{"one": "a"}]) is None
