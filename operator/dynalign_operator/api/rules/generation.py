"""What must fit into the engine's context window, and how prompts are shared out."""

from typing import Final

from dynalign_contract.settings import Thinking
from dynalign_operator.api.rules.rule import Rule

_TASK_WINDOW: Final = 256
"""Minimum context window for tasks, in tokens: half of it is for what the model writes."""

_THOUGHT: Final = "(has(self.generation.thinkingTokens) ? self.generation.thinkingTokens : 0)"
_COMPLETION: Final = f"self.generation.maxTokens + {_THOUGHT}"
"""CEL: tokens of the longest completion, with its thought."""

GENERATION_RULES: Final = (
    Rule(
        at="spec",
        field="generation.thinkingTokens",
        cel="!has(self.generation.thinkingTokens) || self.model.chat.thinking != 'Off'",
        message='has an effect on thoughts only; write model.chat.thinking: "On" or Auto, or remove it',
        holds=lambda s: s.generation.thinking_tokens is None or s.model.chat.thinking is not Thinking.OFF,
    ),
    Rule(
        at="spec",
        field="engine.maxLength",
        cel=f"!has(self.engine.maxLength) || {_COMPLETION} < self.engine.maxLength",
        message="leaves no room for a prompt beside generation.maxTokens and thinkingTokens; raise it, or lower them",
        holds=lambda s: s.engine.max_length is None or s.generation.completion_tokens < s.engine.max_length,
    ),
    Rule(
        at="spec",
        field="engine.maxLength",
        cel=f"!has(self.engine.maxLength) || {_COMPLETION} >= self.engine.maxLength || "
        f"self.prompts.maxTokens + {_COMPLETION} <= self.engine.maxLength",
        message="is less than prompts.maxTokens + generation.maxTokens + thinkingTokens together; raise it, or lower "
        "one of them",
        holds=lambda s: (
            s.engine.max_length is None
            or s.generation.completion_tokens >= s.engine.max_length
            or s.prompts.max_tokens + s.generation.completion_tokens <= s.engine.max_length
        ),
    ),
    Rule(
        at="spec",
        field="evaluation.winRate.maxTokens",
        cel="!has(self.engine.maxLength) || !has(self.evaluation.winRate.maxTokens) || "
        f"self.evaluation.winRate.maxTokens + {_THOUGHT} < self.engine.maxLength",
        message="leaves no room for a prompt in engine.maxLength; lower it",
        holds=lambda s: (
            s.engine.max_length is None
            or s.evaluation.win_rate.max_tokens is None
            or s.evaluation.win_rate.max_tokens + (s.generation.thinking_tokens or 0) < s.engine.max_length
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
