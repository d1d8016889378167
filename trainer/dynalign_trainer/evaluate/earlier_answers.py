"""Held-out answers that earlier evaluations of the run have sampled: greedy ones, so they are not sampled again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.inputs import EVALUATIONS, Input
from dynalign_contract.layout import ANSWERS_FILE
from dynalign_contract.records import AnswerRow, PromptRow
from dynalign_contract.settings import NUMBER_OF_ENGINES
from dynalign_trainer.evaluate.answers import read_answers
from dynalign_trainer.models.thoughts import Lengths
from dynalign_trainer.runtime.context import StageContext


def read_earlier_answers(context: StageContext[EvaluateParams]) -> list[list[AnswerRow]]:
    """ANSWER rows of each evaluation that is an input: the latest, the capability's, those of the ratings."""
    single = [context.input(name) for name in (Input.ANSWERS, Input.CAPABILITY) if name in context.inputs]
    folders = dict.fromkeys([*single, *context.earlier(EVALUATIONS)])
    return [read_answers(folder / ANSWERS_FILE) or [] for folder in folders]


def sampling_digest(context: StageContext[EvaluateParams], policy: Policy, lengths: Lengths) -> str:
    """Digest of everything beside the prompt that a policy's greedy answer depends on, 16 hexadecimal digits."""
    weights = policy.adapter or context.config.inputs.get(Input.MODEL)
    parts: Mapping[str, Any] = {
        "weights": None if weights is None else weights.digest,
        "engine": context.config.engine.model_dump(mode="json", exclude=set(NUMBER_OF_ENGINES)),
        "chat": context.config.chat.model_dump(mode="json"),
        "lengths": [lengths.answer, lengths.thought],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def find_earlier_answers(
    earlier: Sequence[Sequence[AnswerRow]], prompts: Sequence[PromptRow], policy: Policy, digest: str
) -> list[AnswerRow] | None:
    """ANSWER rows of a policy to these prompts, in their order; None unless one evaluation has all of them.

    `earlier` are the rows of each evaluation. `digest` is that of the sampling: answers that were sampled otherwise are
    not these.
    """
    wanted = {prompt["prompt_id"]: None for prompt in prompts}
    for rows in earlier:
        own = [row for row in rows if row["policy"] == policy.version and row.get("sampled_with") == digest]
        own = [row for row in own if row["prompt_id"] in wanted]  # a shard asks for some of the prompts
        if [row["prompt_id"] for row in own] == list(wanted):
            return [_as_sampled(row) for row in own]
    return None


def _as_sampled(row: AnswerRow) -> AnswerRow:
    """The row before anybody has judged it."""
    judged = ("verifiers", "raw_reward", "reward", "rewarded_by")
    return cast("AnswerRow", {name: value for name, value in row.items() if name not in judged})
