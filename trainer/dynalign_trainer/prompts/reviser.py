"""The reviser: rewrites drafts that the critic finds neither good nor hopeless."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import Template

from dynalign_contract.agents import ReviserSettings
from dynalign_contract.errors import BadConfigError
from dynalign_contract.objective import Objective, ReviserTemplate
from dynalign_trainer.models.chat_model import ChatModel, ChatTurn, Sampling
from dynalign_trainer.prompts.author import clean
from dynalign_trainer.prompts.critic import Quotation
from dynalign_trainer.prompts.drafts import Actor, Draft, Drop, Tally
from dynalign_trainer.runtime.progress import Watch


@dataclass(frozen=True)
class SortedDrafts:
    """Scored drafts, by what is to be done with them; each in order."""

    good: list[Draft]
    mendable: list[Draft]
    hopeless: list[Draft]


def sort_drafts(drafts: Sequence[Draft], min_score: float, reviser: ReviserSettings | None) -> SortedDrafts:
    """Drafts by what follows: good from `min_score`, or with a reviser from `revise_below`, or if without a score."""
    good_from = min_score if reviser is None else max(min_score, reviser.revise_below)
    found = SortedDrafts([], [], [])
    for draft in drafts:
        if not draft.score < good_from:
            found.good.append(draft)
        elif reviser is not None and reviser.revise_from <= draft.score < reviser.revise_below:
            found.mendable.append(draft)
        else:
            found.hopeless.append(draft)
    return found


def require_reviser(objective: Objective) -> ReviserTemplate:
    """The objective's reviser. Raises BadConfigError when it has none, or no critic to say what needs one."""
    if objective.critic is None or objective.reviser is None:
        lacks = "critic" if objective.critic is None else "reviser"
        raise BadConfigError(
            f"prompts.agents.reviser is set, but the objective {objective.name} has no {lacks}. Add one to the "
            "objective, or remove prompts.agents.reviser."
        )
    return objective.reviser


def revise_drafts(
    model: ChatModel,
    objective: Objective,
    settings: ReviserSettings,
    drafts: Sequence[Draft],
    quotation: Quotation,
    *,
    sampling_seeds: Sequence[int],
    tally: Tally,
    watch: Watch | None,
) -> list[Draft]:
    """Revised drafts, unscored, each with what it was before; those that were not revised are counted."""
    template = require_reviser(objective)
    marks = quotation.delimiters
    turns = [
        ChatTurn(
            Template(template.message).safe_substitute(
                preamble=objective.preamble, prompt=quotation.quote(draft.text), open=marks.open, close=marks.close
            ),
            template.prefill,
        )
        for draft in drafts
    ]
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_tokens=settings.max_tokens)
    tally.of(Actor.REVISER).given += len(drafts)
    revised = []
    model.forget()
    for draft, found in zip(drafts, model.write(turns, sampling, seeds=sampling_seeds, watch=watch), strict=True):
        if found is None:
            tally.lose(Actor.REVISER, Drop.BUDGET)
        elif text := clean("", found.text, finished=found.finished):
            revised.append(replace(draft, text=text, score=math.nan, before=draft))
        else:
            tally.lose(Actor.REVISER, Drop.UNFINISHED)
    return revised
