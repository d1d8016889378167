"""generate: a group of candidate answers for every prompt, with the log-probabilities they were drawn with."""

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
)
from dynalign_contract.settings import GenerationSettings
from dynalign_trainer.generate.sampling import generate
from dynalign_trainer.models.text_statistics import distinct_n
from dynalign_trainer.runtime.context import StageContext, StageOutput
from dynalign_trainer.runtime.parts import Part
from dynalign_trainer.runtime.shared_parts import SharedParts

_MOST: Final = 0.5
"""Share of unfinished thoughts beyond which a person is told."""


def run(context: StageContext[GenerateParams]) -> StageOutput[GenerateParams]:
    """Write this shard's rollouts, one Parquet part after the other; finished parts are kept.

    A shard that is done helps the others. Raises BadInputError when there are no prompts or one does not fit into the
    context window.
    """
    settings = context.params.generation
    with SharedParts(
        context,
        _read_prompts(context),
        size=settings.prompts_per_part,
        table=ROLLOUT,
        is_complete=lambda part, rows: is_complete(part, rows, settings.candidates),
    ) as shared:
        rate = generate(context, shared)
    rows = [row for part in shared.parts for row in shared.rows[part.index]]
    metrics = rollout_metrics(rows)
    if warning := explain_unfinished(metrics[GenerateMetrics.unfinished_thought_share], settings):
        context.warn(warning)
    return StageOutput(
        files={part.name: len(shared.rows[part.index]) for part in shared.parts},
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
