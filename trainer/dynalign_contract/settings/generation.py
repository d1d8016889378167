"""How candidates are sampled, and over how many workers."""

from pydantic import Field

from dynalign_contract.base import Model


class GenerationSettings(Model):
    """Sampling of candidates: a group for each prompt."""

    candidates: int = Field(default=8, ge=2, le=256)
    """Group size G."""
    max_tokens: int = Field(default=512, ge=1, le=131_072)
    """Maximum length of a completion, in tokens."""
    thinking_tokens: int | None = Field(default=None, ge=1, le=131_072, exclude_if=lambda tokens: tokens is None)
    """Maximum length of a thought, in tokens, apart from `maxTokens`; for `model.chat.thinking` "On" or Auto. A thought
    that does not end by then leaves an empty answer. Default: thought and answer share `maxTokens`."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature; at 1 the candidates are drawn from the policy itself."""
    shards: int = Field(default=1, ge=1, le=256)
    """Workers over which generate, judge and evaluate split their prompts, evaluate also the items of tasks."""
    prompts_per_part: int = Field(default=32, ge=1, le=4096)
    """Prompts in one Parquet part; of several workers each has four parts at least. A restarted worker keeps its
    finished parts, and workers that are done make parts that others have not begun."""

    @property
    def completion_tokens(self) -> int:
        """Maximum length of a completion with its thought, in tokens."""
        return self.max_tokens + (self.thinking_tokens or 0)
