"""Why too few prompts remain: what became of the drafts, and one remedy for each cause. Pure."""

from collections.abc import Mapping
from typing import Final

from dynalign_contract.settings import PromptSettings
from dynalign_trainer.prompts.drafts import Actor, Drop, Tally

_SHOWN: Final = 3
"""Causes that get their remedy, the most frequent first."""

_SUPPLIED: Final[Mapping[Drop, str]] = {
    Drop.UNFINISHED: "take the empty rows out of the file",
    Drop.SHORT: "lower prompts.minCharacters, or lengthen the short rows",
    Drop.LONG: "raise prompts.maxTokens (and engine.maxLength with it), or shorten the long rows",
    Drop.DUPLICATE: "take the rows that occur twice out of the file",
    Drop.NEAR_DUPLICATE: "raise prompts.dedup.threshold, or supply rows that differ more",
    Drop.CLUSTER: "raise prompts.dedup.clusters.maxSize or similarity, or supply rows that differ more",
    Drop.CONTAMINATED: "take the rows that the evaluation's own questions resemble out of the file, or raise "
    "prompts.decontamination.words",
    Drop.LANGUAGE: "add the rows' language to prompts.languages",
}
_WRITTEN: Final[Mapping[Drop, str]] = {
    Drop.UNFINISHED: "raise prompts.agents.author.maxTokens, or name an author that writes whole sentences",
    Drop.SHORT: "lower prompts.minCharacters",
    Drop.LONG: "raise prompts.maxTokens, or lower prompts.agents.author.maxTokens",
    Drop.DUPLICATE: "give more prompts.seeds.facets, or raise prompts.agents.author.temperature",
    Drop.NEAR_DUPLICATE: "give more prompts.seeds.facets, or raise prompts.dedup.threshold",
    Drop.CLUSTER: "give more prompts.seeds.facets, or raise prompts.dedup.clusters.maxSize",
    Drop.CONTAMINATED: "raise prompts.decontamination.words",
    Drop.LANGUAGE: "add the drafts' language to prompts.languages, or name an author that writes the wanted one",
    Drop.LOW_SCORE: "lower prompts.agents.critic.minScore",
    Drop.BUDGET: "raise the budget of the agent's endpoint",
}
_TOO_FEW_DRAFTS: Final = "raise prompts.agents.author.draftsPerPrompt"


def explain_shortage(settings: PromptSettings, purpose: str, found: int, wanted: int, tally: Tally) -> str:
    """The error's message: how many are left, why, and what to do."""
    kind = {"heldout": "held-out", "train": "training"}[purpose]
    return (
        f"only {found} of {wanted} {kind} prompts remain, less than prompts.minYield {settings.min_yield} allows; "
        f"{tally.explain()}. {_remedies(settings, tally, found, wanted)}"
    )


def _remedies(settings: PromptSettings, tally: Tally, found: int, wanted: int) -> str:
    counted = sorted(
        (
            (number, hand is not Actor.SUPPLIED, remedy)
            for hand, work in tally.work.items()
            for cause, number in work.dropped.items()
            if (remedy := (_SUPPLIED if hand is Actor.SUPPLIED else _WRITTEN).get(cause))
        ),
        key=lambda entry: -entry[0],
    )
    remedies = list(dict.fromkeys(remedy for _, _, remedy in counted))[:_SHOWN]
    if Actor.AUTHOR in tally.work and not remedies:
        remedies.append(_TOO_FEW_DRAFTS)
    if settings.supplied is not None and _lacks_rows(tally, found, wanted):
        rows = tally.work[Actor.SUPPLIED].given if Actor.SUPPLIED in tally.work else 0
        remedies.insert(
            0,
            f"lower prompts.perIteration or add rows, for {settings.supplied.uri} has {rows} for this purpose; or "
            f"lower prompts.supplied.share, which is {settings.supplied.share:g}, and the agents write the rest",
        )
    sentence = "; ".join(remedies) or "supply prompts of your own in prompts.supplied"
    return sentence[0].upper() + sentence[1:] + "."


def _lacks_rows(tally: Tally, found: int, wanted: int) -> bool:
    """Whether even without a single drop the user's rows, and no agent, would have left the set too small."""
    supplied = tally.work.get(Actor.SUPPLIED)
    return Actor.AUTHOR not in tally.work and (supplied is None or supplied.given < wanted) and found < wanted
