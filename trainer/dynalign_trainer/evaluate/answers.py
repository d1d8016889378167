"""Greedy answers of several policies to the held-out prompts."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.errors import BadInputError, CorruptArtifactError
from dynalign_contract.metrics import EvaluateMetrics, MetricValues
from dynalign_contract.records import (
    ANSWER,
    PROMPT,
    AnswerRow,
    PromptRow,
    answer_length,
    read_rows,
    unfinished_thought_share,
    write_rows,
)
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.thoughts import Lengths, Written, sample_chats
from dynalign_trainer.runtime.progress import Watch

log = logging.getLogger("dynalign.evaluate")


def read_held_out(path: Path) -> list[PromptRow]:
    """The held-out prompts. Raises BadInputError when there are none."""
    rows = read_rows(path, PROMPT)
    if not rows:
        raise BadInputError(
            f"{path} holds no prompts, so nothing can be evaluated. Set prompts.heldOut to 1 or more and remove the "
            f"folder {path.parent} to have its stage run again."
        )
    return rows


def sample_answers(
    engine: Engine, prompts: Sequence[PromptRow], policy: Policy, *, lengths: Lengths, watch: Watch | None
) -> list[AnswerRow]:
    """ANSWER rows of one policy at temperature 0, one a prompt, order kept.

    Raises BadInputError naming a prompt that leaves no room for the longest answer.
    """
    if not prompts:
        return []
    ids, longest = [engine.chat.encode(prompt["messages"]) for prompt in prompts], lengths.completion
    for prompt, tokens in zip(prompts, ids, strict=True):
        if len(tokens) + longest > engine.max_length:
            raise BadInputError(
                f"held-out prompt {prompt['prompt_id']} has {len(tokens)} tokens and an answer may have {longest}, "
                f"together more than the context window of {engine.max_length}. Lower evaluation.winRate.maxTokens or "
                "raise engine.maxLength."
            )
    engine.forget_prefixes()
    sampling = Sampling(temperature=0.0, max_tokens=lengths.answer)
    groups = sample_chats(engine, ids, sampling, lengths.thought, policy=policy, seeds=[0] * len(ids), watch=watch)
    return [
        _row(prompt["prompt_id"], engine.chat.complete(prompt["messages"]), written, policy)
        for prompt, (written,) in zip(prompts, groups, strict=True)
    ]


def _row(prompt_id: str, messages: list[Message], written: Written, policy: Policy) -> AnswerRow:
    sample, thought = written.sample, written.thought
    row: AnswerRow = {
        "prompt_id": prompt_id,
        "policy": policy.version,
        "messages": messages,
        "completion_ids": list(sample.token_ids),
        "finish_reason": sample.finish_reason,
        "text": sample.text,
    }
    if thought is not None:
        row |= {"thought": thought.text, "thought_tokens": thought.tokens}
    return row


def answer_metrics(policy: Sequence[AnswerRow], base: Sequence[AnswerRow]) -> MetricValues[EvaluateParams]:
    """Mean lengths in tokens, and shares of thoughts that never end; these are None in a run that does not think."""
    return {
        EvaluateMetrics.mean_length: _mean_length(policy),
        EvaluateMetrics.mean_length_base: _mean_length(base),
        EvaluateMetrics.unfinished_thought_share: unfinished_thought_share(policy),
        EvaluateMetrics.unfinished_thought_share_base: unfinished_thought_share(base),
    }


def _mean_length(rows: Sequence[AnswerRow]) -> float:
    """Mean length of the answers in tokens, without their thoughts."""
    return sum(map(answer_length, rows)) / len(rows)


def keep_or_sample(
    path: Path,
    prompts: Sequence[PromptRow],
    policies: Sequence[Policy],
    sample: Callable[[Policy], list[AnswerRow]],
) -> dict[str, list[AnswerRow]]:
    """Answers by policy version, in the order of the prompts; read from `path` when an earlier attempt wrote them all.

    Policies of one version answer once.
    """
    versions = list(dict.fromkeys(policy.version for policy in policies))
    rows = read_answers(path)
    expected = [(version, prompt["prompt_id"]) for version in versions for prompt in prompts]
    if rows is None or [(row["policy"], row["prompt_id"]) for row in rows] != expected:
        by_version = {policy.version: policy for policy in policies}
        rows = [row for version in versions for row in sample(by_version[version])]
        write_rows(path, rows, ANSWER)
    count = len(prompts)
    return {version: rows[i * count : (i + 1) * count] for i, version in enumerate(versions)}


def read_answers(path: Path) -> list[AnswerRow] | None:
    """ANSWER rows of a file; None where it is absent or damaged."""
    if not path.exists():
        return None
    try:
        return read_rows(path, ANSWER)
    except CorruptArtifactError:
        log.warning("%s is damaged and is made again", path)
        return None
