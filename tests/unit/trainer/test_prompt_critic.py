"""The critic's questions, and the drafts that are kept."""

import math

from dynalign_contract.objective import CriticTemplate
from dynalign_trainer.prompts.critic import critic_messages, keep_best
from dynalign_trainer.prompts.drafts import Draft


def drafts(*scores: float) -> list[Draft]:
    return [Draft(f"draft {i}", {}, score) for i, score in enumerate(scores)]


def test_the_best_are_kept_in_their_own_order() -> None:
    kept = keep_best(drafts(1.0, 5.0, 3.0, 4.0), 2)
    assert [draft.text for draft in kept] == ["draft 1", "draft 3"]


def test_ties_go_to_the_earlier_and_unscored_ones_come_last() -> None:
    assert [draft.text for draft in keep_best(drafts(2.0, 2.0, 2.0), 2)] == ["draft 0", "draft 1"]
    assert [draft.text for draft in keep_best(drafts(math.nan, 0.0, math.nan), 2)] == ["draft 0", "draft 1"]
    assert len(keep_best(drafts(1.0), 5)) == 1


def test_questions_share_everything_but_their_ends() -> None:
    critic = CriticTemplate(message="$preamble / $open $prompt $close", criteria={"a": "Clear?", "b": "Open?"})
    first, second = critic_messages(critic, "Be good.", "Costs $5, $open?")
    assert first.removesuffix("Clear?") == second.removesuffix("Open?")
    assert "Costs $5, $open?" in first
