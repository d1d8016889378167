"""The candidates of a prompt together: what the judge sees at once."""

from dataclasses import dataclass, field

from dynalign_contract.config import JudgeParams
from dynalign_contract.errors import BadInputError
from dynalign_contract.inputs import Input
from dynalign_contract.records import ROLLOUT, RolloutRow, read_parts
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.runtime.context import StageContext


@dataclass(frozen=True)
class RolloutGroup:
    """A prompt and its candidates."""

    prompt_id: str
    messages: list[Message]
    candidates: list[RolloutRow] = field(default_factory=list)


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
