"""What each judge of a panel is asked about: the shard's candidates, canaries, and groups that all shards look at."""

from collections.abc import Sequence
from dataclasses import dataclass

from dynalign_contract.config import JudgeParams
from dynalign_contract.records import RolloutRow
from dynalign_contract.settings import OnUnfitJudge
from dynalign_trainer.judge.canaries import Canary, make_canaries
from dynalign_trainer.judge.groups import RolloutGroup, as_canary_groups
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.parts import Part

Key = tuple[str, int]
"""(prompt_id, candidate)."""


@dataclass(frozen=True)
class Questions:
    """What is put to every judge of a shard alike."""

    parts: Sequence[Part[RolloutGroup]]
    foreign: Sequence[RolloutGroup]
    """Groups of shard 0 that this shard looks at as well, so that all shards come to the same verdict."""
    canaries: Sequence[Canary]
    canary_groups: Sequence[RolloutGroup]
    """Groups for whose prompts the canaries are made."""
    compared: Sequence[RolloutGroup]
    """Groups that the base model judges too; empty where that is switched off."""
    decides: bool
    """Whether this shard finds out for itself which judges are fit; otherwise shard 0 does it for all."""

    @property
    def own(self) -> list[RolloutGroup]:
        """The shard's groups, in their order."""
        return [group for part in self.parts for group in part.inputs]

    @property
    def count(self) -> int:
        """Answers that one judge scores."""
        return sum(len(group.candidates) for group in (*self.own, *self.foreign)) + len(self.canaries)


def plan_questions(
    context: StageContext[JudgeParams], parts: Sequence[Part[RolloutGroup]], leading: Sequence[RolloutGroup]
) -> Questions:
    """The questions of this shard; `leading` are the groups of shard 0, whichever shard this is.

    Where an unfit judge is left out, every shard looks at the canaries and groups of shard 0. Where it stops the run,
    shard 0 alone can do that.
    """
    judging = context.params.judging
    is_gated = judging.gates.need_figures and judging.gates.on_unfit is OnUnfitJudge.LEAVE_OUT
    decides = context.shard == 0 or is_gated
    canary_groups = leading[: judging.canaries.prompts] if decides else ()
    own = [group for part in parts for group in part.inputs]
    compared = (leading if decides else own)[: judging.base_agreement_prompts] if judging.need_engine else ()
    known = {group.prompt_id for group in own}
    wanted = {group.prompt_id: group for group in (*canary_groups, *compared)}
    return Questions(
        parts=parts,
        foreign=[group for prompt, group in wanted.items() if prompt not in known],
        canaries=make_canaries(
            as_canary_groups(canary_groups),
            context.seed,
            judging.canaries.injections,
        ),
        canary_groups=canary_groups,
        compared=compared,
        decides=decides,
    )


def keys_of(group: RolloutGroup) -> list[Key]:
    """The keys of a group's candidates, in their order."""
    return [key_of(row) for row in group.candidates]


def key_of(row: RolloutRow) -> Key:
    """The key of a candidate."""
    return row["prompt_id"], row["candidate"]
