"""Which drafts are revised, and how the reviser is asked."""

import math
from collections.abc import Sequence

import pytest

from dynalign_contract.agents import ReviserSettings
from dynalign_contract.errors import BadConfigError
from dynalign_contract.objective import builtin_objective
from dynalign_trainer.models.chat_model import Completion
from dynalign_trainer.models.quoting import make_delimiters
from dynalign_trainer.prompts.critic import Quotation
from dynalign_trainer.prompts.drafts import Actor, Draft, Drop, Tally
from dynalign_trainer.prompts.reviser import require_reviser, revise_drafts, sort_drafts
from support.scripted_model import ScriptedModel

OBJECTIVE = builtin_objective("collective-agency")
QUOTATION = Quotation(make_delimiters(1, "drafts"), ())


def drafts(*scores: float) -> list[Draft]:
    return [Draft(f"Draft {i}?", {}, score, draft_id=f"d{i}") for i, score in enumerate(scores)]


def names(found: Sequence[Draft]) -> list[str]:
    return [draft.draft_id for draft in found]


@pytest.mark.parametrize(
    ("min_score", "reviser", "good", "mendable", "hopeless"),
    [
        (0.0, None, "d0 d1 d2 d3 d4", "", ""),
        (4.0, None, "d2 d3 d4", "", "d0 d1"),
        (0.0, ReviserSettings(revise_from=3, revise_below=6), "d3 d4", "d1 d2", "d0"),
        (5.0, ReviserSettings(revise_from=3, revise_below=5), "d2 d3 d4", "d1", "d0"),
        (0.0, ReviserSettings(revise_from=0, revise_below=9), "d4", "d0 d1 d2 d3", ""),
    ],
)
def test_two_thresholds_sort_the_drafts(
    min_score: float, reviser: ReviserSettings | None, good: str, mendable: str, hopeless: str
) -> None:
    """A draft that nobody could score is not held against the author."""
    found = sort_drafts(drafts(2.0, 3.0, 5.0, 6.0, math.nan), min_score, reviser)
    assert [" ".join(names(part)) for part in (found.good, found.mendable, found.hopeless)] == [
        good,
        mendable,
        hopeless,
    ]


def test_what_is_mended_knows_what_it_was() -> None:
    tally = Tally()
    answers = [Completion("", '"A better question?"', finished=True), Completion("", "cut off", finished=False), None]
    model = ScriptedModel(text=lambda turn, number: answers[number])
    before = drafts(4.0, 4.0, 4.0)
    revised = revise_drafts(
        model, OBJECTIVE, ReviserSettings(), before, QUOTATION, sampling_seeds=[1, 2, 3], tally=tally, watch=None
    )
    assert [(m.text, m.draft_id, m.before) for m in revised] == [("A better question?", "d0", before[0])]
    assert math.isnan(revised[0].score)
    assert tally.of(Actor.REVISER).dropped == {Drop.UNFINISHED: 1, Drop.BUDGET: 1}
    assert f"{QUOTATION.delimiters.open}\nDraft 0?\n{QUOTATION.delimiters.close}" in model.turns[0].message


@pytest.mark.parametrize("lacks", ["critic", "reviser"])
def test_an_objective_that_cannot_mend_is_refused(lacks: str) -> None:
    objective = OBJECTIVE.model_copy(update={lacks: None})
    with pytest.raises(BadConfigError, match=f"the objective collective-agency has no {lacks}. Add one"):
        require_reviser(objective)


def test_lineage_tells_both_versions() -> None:
    tally = Tally()
    first = Draft("Lie?", {"domain": "life"}, 4.0, draft_id="train-0-1")
    tally.keep(
        Actor.REVISER, [Draft("Is it right to lie?", {"domain": "life"}, 7.0, draft_id="train-0-1", before=first)]
    )
    assert tally.draft_rows({"train-0-1": "000-00000"}) == [
        {
            "draft_id": "train-0-1",
            "facets": {"domain": "life"},
            "text": "Lie?",
            "score": 4.0,
            "revised": "Is it right to lie?",
            "revised_score": 7.0,
            "agent": "reviser",
            "outcome": "kept",
            "prompt_id": "000-00000",
        }
    ]
