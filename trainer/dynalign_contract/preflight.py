"""What is asked of a model and of the user's files before a run's work begins, and what is answered."""

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.objective import Objective
from dynalign_contract.settings import (
    ChatSettings,
    EngineSettings,
    JudgingSettings,
    PromptSettings,
    Quantized,
    Rewards,
    TrainingSettings,
    WinRateSettings,
)
from dynalign_contract.training_choice import TrainingChoice


class Preflight(Model):
    """The settings about which model, tokenizer, chat template and rows decide."""

    prompts: PromptSettings
    training: TrainingSettings
    max_tokens: int
    """`generation.maxTokens`: tokens that the context window must keep free for an answer."""
    thinking_tokens: int | None = None
    """`generation.thinkingTokens`: tokens that it must keep free for the thought before it."""
    rewards: Rewards = Field(default=(), exclude_if=lambda rewards: not rewards)
    """Verifiers, and the columns of the user's rows that they read."""
    objective: Objective | None = None
    """The objective, whose questions are answered by a digit or a letter: one token each. None: not looked at."""
    judging: JudgingSettings | None = None
    """`judging`: whether the model itself is a judge. None: it is."""
    win_rate: WinRateSettings | None = None
    """`evaluation.winRate`: whether answers are compared by letters, and by the model itself."""


class PreflightOrder(Model):
    """What `python -m dynalign_trainer.preflight` reads from standard input."""

    model: str
    """Folder of the model."""
    preflight: Preflight
    engine: EngineSettings = EngineSettings()
    chat: ChatSettings = ChatSettings()
    quantized: Quantized = Quantized.REFUSE


class Finding(Model):
    """One thing that is wrong, with its remedy."""

    reason: str
    exit_code: int
    message: str


class PreflightReport(Model):
    """What the command writes to standard output, in one line."""

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person may want to know, though nothing is wrong."""
    training: TrainingChoice | None = None
    """How the policy would be trained; None where something is wrong with that."""
