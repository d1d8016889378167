"""Exit codes of a stage. They are API: the planner's retry rules depend on them."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a stage ended. Any other code is retriable."""

    DONE = 0
    BAD_CONFIG = 10
    """The run file or the StageConfig is wrong; a retry cannot help."""
    BAD_INPUT = 11
    """An input artifact, model or user file is missing, unreadable or damaged; a retry cannot help."""
    UNFIT = 12
    """A gate refused: the judge is not to be trusted, or the model got worse."""
    REPEATED = 13
    """An unforeseen error came a second time from the same place, with the same inputs."""
    AWAITING_APPROVAL = 20
    """`dynalign run` has ended because the run waits for `dynalign approve`; no stage ends with it."""
    OVER_BUDGET = 21
    """`dynalign run` has ended because the next stage would exceed `spec.policy.budget`; no stage ends with it."""
    BUSY = 75
    """Another process holds the working folder (EX_TEMPFAIL); try again when it has ended."""
    TERMINATED = 143
    """Stopped by SIGTERM after saving what could be saved."""


FINAL: frozenset[int] = frozenset({ExitCode.BAD_CONFIG, ExitCode.BAD_INPUT, ExitCode.UNFIT, ExitCode.REPEATED})
"""Codes after which the planner does not try again."""
