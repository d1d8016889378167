"""What must fit into the engine's context window, and how prompts are shared out."""

from typing import Final

from dynalign_operator.api.rules.rule import Rule

_TASK_WINDOW: Final = 256
"""Minimum context window for tasks, in tokens: half of it is for what the model writes."""

GENERATION_RULES: Final = (
    Rule(
        at="spec",
        field="engine.maxLength",
        cel="!has(self.engine.maxLength) || self.generation.maxTokens < self.engine.maxLength",
        message="leaves no room for a prompt beside generation.maxTokens; raise it, or lower generation.maxTokens",
        holds=lambda s: s.engine.max_length is None or s.generation.max_tokens < s.engine.max_length,
    ),
    Rule(
        at="spec",
        field="engine.maxLength",
        cel="!has(self.engine.maxLength) || self.generation.maxTokens >= self.engine.maxLength || "
        "self.prompts.maxTokens + self.generation.maxTokens <= self.engine.maxLength",
        message="is less than prompts.maxTokens + generation.maxTokens together; raise it, or lower one of them",
        holds=lambda s: (
            s.engine.max_length is None
            or s.generation.max_tokens >= s.engine.max_length
            or s.prompts.max_tokens + s.generation.max_tokens <= s.engine.max_length
        ),
    ),
    Rule(
        at="spec",
        field="evaluation.winRate.maxTokens",
        cel="!has(self.engine.maxLength) || !has(self.evaluation.winRate.maxTokens) || "
        "self.evaluation.winRate.maxTokens < self.engine.maxLength",
        message="leaves no room for a prompt in engine.maxLength; lower it",
        holds=lambda s: (
            s.engine.max_length is None
            or s.evaluation.win_rate.max_tokens is None
            or s.evaluation.win_rate.max_tokens < s.engine.max_length
        ),
    ),
    Rule(
        at="spec",
        field="engine.maxLength",
        cel="!has(self.engine.maxLength) || size(self.evaluation.capability.tasks) == 0 || "
        f"self.engine.maxLength >= {_TASK_WINDOW}",
        message=f"is too small for the tasks of evaluation.capability; raise it to at least {_TASK_WINDOW}, or remove "
        "the tasks",
        holds=lambda s: (
            s.engine.max_length is None or not s.evaluation.capability.tasks or s.engine.max_length >= _TASK_WINDOW
        ),
    ),
    Rule(
        at="spec",
        field="generation.shards",
        cel="self.generation.shards <= self.prompts.perIteration",
        message="is more than prompts.perIteration; give every shard at least one prompt",
        holds=lambda s: s.generation.shards <= s.prompts.per_iteration,
    ),
)
