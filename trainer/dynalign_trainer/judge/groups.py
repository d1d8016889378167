"""The candidates of a prompt together: what the judge sees at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dynalign_contract.config import JudgeParams
from dynalign_contract.errors import BadInputError
from dynalign_contract.inputs import Input
from dynalign_contract.records import ROLLOUT, RolloutRow, read_parts
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.judge.canaries import Group
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.scoring.contexts import Candidate


@dataclass(frozen=True)
class RolloutGroup:
    """A prompt and its candidates."""

    prompt_id: str
    messages: list[Message]
    candidates: list[RolloutRow] = field(default_factory=list)


def candidates_of(groups: Sequence[RolloutGroup]) -> list[Candidate]:
    """The candidates of groups, those of a prompt adjacent."""
    return [Candidate(group.prompt_id, group.messages, row["text"]) for group in groups for row in group.candidates]


def as_canary_groups(groups: Sequence[RolloutGroup]) -> list[Group]:
    """The prompts with their answers, from which canaries are made."""
    return [Group(group.prompt_id, group.messages, [row["text"] for row in group.candidates]) for group in groups]


def read_groups(context: StageContext[JudgeParams]) -> list[RolloutGroup]:
    """All groups of the input "rollouts", in the order of shards, parts and rows. Raises BadInputError without any."""
    folders = context.input_shards(Input.ROLLOUTS)
    groups: dict[str, RolloutGroup] = {}
    for row in read_parts(folders, ROLLOUT):
        group = groups.setdefault(row["prompt_id"], RolloutGroup(row["prompt_id"], row["messages"]))
        group.candidates.append(row)
    if not groups:
        raise BadInputError(
            f"{folders[0]} holds no candidates, so there is nothing to judge. Remove the folder to have them generated "
            "again."
        )
    return list(groups.values())
