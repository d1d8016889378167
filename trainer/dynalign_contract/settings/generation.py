"""How candidates are sampled, and over how many workers."""

from pydantic import Field

from dynalign_contract.base import Model


class GenerationSettings(Model):
    """Sampling of candidates: a group for each prompt."""

    candidates: int = Field(default=8, ge=2, le=256)
    """Group size G."""
    max_tokens: int = Field(default=512, ge=1, le=131_072)
    """Maximum length of a completion, in tokens."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature; at 1 the candidates are drawn from the policy itself."""
    shards: int = Field(default=1, ge=1, le=256)
    """Workers over which the prompts are split."""
    prompts_per_part: int = Field(default=32, ge=1, le=4096)
    """Prompts in one Parquet part; a restarted worker keeps its finished parts."""
