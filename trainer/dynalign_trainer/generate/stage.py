"""generate: a group of candidate answers for every prompt, with the log-probabilities they were drawn with."""

import time
from collections.abc import Sequence
from typing import Final

from dynalign_contract.config import GenerateParams
from dynalign_contract.errors import BadInputError
from dynalign_contract.inputs import Input
from dynalign_contract.layout import PROMPTS_FILE
from dynalign_contract.metrics import GenerateMetrics, MetricValues
from dynalign_contract.records import (
    PROMPT,
    ROLLOUT,
    PromptRow,
    RolloutRow,
    answer_length,
    read_rows,
    unfinished_thought_share,
    write_rows,
)
from dynalign_contract.settings import GenerationSettings
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.engine import Engine, start_engine
from dynalign_trainer.models.text_statistics import distinct_n
from dynalign_trainer.models.thoughts import Written, sample_chats
from dynalign_trainer.runtime.context import StageContext, StageOutput
from dynalign_trainer.runtime.parts import Part, reuse_finished_parts, split_parts
from dynalign_trainer.runtime.progress import Watch, watch_progress

_MOST: Final = 0.5
"""Share of unfinished thoughts beyond which a person is told."""


def run(context: StageContext[GenerateParams]) -> StageOutput[GenerateParams]:
    """Write this shard's rollouts, one Parquet part after the other; finished parts are kept.

    Raises BadInputError when there are no prompts or one does not fit into the context window.
    """
    settings = context.params.generation
    prompts = _read_prompts(context)[context.shard :: context.config.shards]
    parts = split_parts(prompts, settings.prompts_per_part)
    finished = reuse_finished_parts(
        context.folder, parts, ROLLOUT, lambda part, rows: is_complete(part, rows, settings.candidates)
    )
    rate = None
    missing = [part for part in parts if part.index not in finished]
    if missing:
        engine = start_engine(context, [context.params.policy])
        started = time.monotonic()
        for part in missing:
            context.check_stop()
            done = sum(len(rows) for rows in finished.values())
            watch = watch_progress(
                context,
                done=done,
                total=len(prompts) * settings.candidates,
                share=len(part.inputs) * settings.candidates,
            )
            finished[part.index] = _generate(context, engine, part, watch)
        written = [row for part in missing for row in finished[part.index]]
        rate = sum(len(row["completion_ids"]) for row in written) / (time.monotonic() - started)
    rows = [row for part in parts for row in finished[part.index]]
    metrics = rollout_metrics(rows)
    if warning := explain_unfinished(metrics[GenerateMetrics.unfinished_thought_share], settings):
        context.warn(warning)
    return StageOutput(
        files={part.name: len(finished[part.index]) for part in parts},
        metrics={**metrics, GenerateMetrics.tokens_per_second: rate},
    )


def is_complete(part: Part[PromptRow], rows: Sequence[RolloutRow], candidates: int) -> bool:
    """Whether `rows` hold exactly `candidates` candidates of each prompt of the part, in order."""
    expected = [(prompt["prompt_id"], k) for prompt in part.inputs for k in range(candidates)]
    return [(row["prompt_id"], row["candidate"]) for row in rows] == expected


def rollout_metrics(rows: Sequence[RolloutRow]) -> MetricValues[GenerateParams]:
    """Sizes in tokens, shares from 0 to 1, mean log-probability a token; None where there are no rows."""
    tokens = sum(len(row["completion_ids"]) for row in rows)
    return {
        GenerateMetrics.candidates: len(rows),
        GenerateMetrics.tokens: tokens,
        GenerateMetrics.mean_length: sum(map(answer_length, rows)) / len(rows) if rows else None,
        **_thought_metrics(rows),
        GenerateMetrics.truncated_share: sum(row["finish_reason"] == "length" for row in rows) / len(rows)
        if rows
        else None,
        GenerateMetrics.mean_logprob: sum(sum(row["logprobs"]) for row in rows) / tokens if tokens else None,
        GenerateMetrics.distinct_2: distinct_n((row["text"] for row in rows), 2),
        GenerateMetrics.empty_share: sum(not row["text"].strip() for row in rows) / len(rows) if rows else None,
    }


def explain_unfinished(share: float | None, settings: GenerationSettings) -> str | None:
    """What to do when most answers are empty because their thoughts do not end; None where that is not so."""
    if share is None or share <= _MOST:
        return None
    field = "maxTokens, which thoughts share with answers" if settings.thinking_tokens is None else "thinkingTokens"
    longest = settings.thinking_tokens or settings.max_tokens
    return (
        f"{share:.0%} of the answers are empty, for their thoughts do not end within {longest} tokens "
        f"(generation.{field}). Raise generation.thinkingTokens, or ask for shorter thoughts in model.chat.arguments."
    )


def _thought_metrics(rows: Sequence[RolloutRow]) -> MetricValues[GenerateParams]:
    """Length of thoughts, and share of those that never end; None in a run whose model does not think."""
    thoughts = [row["thought_tokens"] for row in rows if "thought_tokens" in row]
    return {
        GenerateMetrics.mean_thought_length: sum(thoughts) / len(thoughts) if thoughts else None,
        GenerateMetrics.unfinished_thought_share: unfinished_thought_share(rows),
    }


def _read_prompts(context: StageContext[GenerateParams]) -> list[PromptRow]:
    path = context.input(Input.PROMPTS) / PROMPTS_FILE
    rows = read_rows(path, PROMPT)
    if not rows:
        raise BadInputError(
            f"{path} holds no prompts, so there is nothing to answer. Remove the folder {path.parent} to have them "
            "written again, with a larger prompts.perIteration or a lower prompts.agents.critic.minScore."
        )
    return rows


def _generate(
    context: StageContext[GenerateParams], engine: Engine, part: Part[PromptRow], watch: Watch
) -> list[RolloutRow]:
    """Sample and write one part; its rows depend on the part and the run's seed alone, to the last bit on a CPU."""
    settings = context.params.generation
    asked: list[PromptRow] = [{**row, "messages": engine.chat.complete(row["messages"])} for row in part.inputs]
    prompts = [engine.chat.encode(row["messages"]) for row in asked]
    for row, ids in zip(part.inputs, prompts, strict=True):
        if len(ids) + settings.completion_tokens > engine.max_length:
            raise BadInputError(
                f"prompt {row['prompt_id']} has {len(ids)} tokens and an answer may have {settings.completion_tokens}, "
                f"together more than the context window of {engine.max_length}. Lower generation.maxTokens or "
                "prompts.maxTokens, or raise engine.maxLength."
            )
    engine.forget_prefixes()
    groups = sample_chats(
        engine,
        prompts,
        Sampling(temperature=settings.temperature, max_tokens=settings.max_tokens, n=settings.candidates),
        settings.thinking_tokens,
        policy=context.params.policy,
        seeds=[context.seed(row["prompt_id"]) for row in part.inputs],
        watch=watch,
    )
    rows = [
        rollout_row(prompt, ids, k, written, context.params.policy.version)
        for prompt, ids, group in zip(asked, prompts, groups, strict=True)
        for k, written in enumerate(group)
    ]
    write_rows(context.folder / part.name, rows, ROLLOUT)
    context.save_useful_time()
    return rows


def rollout_row(prompt: PromptRow, ids: Sequence[int], candidate: int, written: Written, policy: str) -> RolloutRow:
    """A candidate as it is stored: `ids` are the tokens of the prompt, those of the answer include its thought."""
    sample, thought = written.sample, written.thought
    row: RolloutRow = {
        "prompt_id": prompt["prompt_id"],
        "candidate": candidate,
        "prompt_ids": list(ids),
        "completion_ids": list(sample.token_ids),
        "logprobs": list(sample.logprobs),
        "finish_reason": sample.finish_reason,
        "policy": policy,
        "text": sample.text,
        "messages": prompt["messages"],
    }
    if "columns" in prompt:
        row["columns"] = prompt["columns"]
    if thought is not None:
        row |= {"thought": thought.text, "thought_tokens": thought.tokens}
    return row
