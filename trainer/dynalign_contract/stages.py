"""The stages, and the order in which a run goes through them."""

from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """A command with a contract: one StageConfig in; one artifact, an exit code and a StageResult out."""

    FETCH = "fetch"
    PROMPTS = "prompts"
    GENERATE = "generate"
    JUDGE = "judge"
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"
    REPORT = "report"
    """A side stage: it runs beside the others, and the run does not depend on it."""


ITERATION_STAGES: Final = (Stage.PROMPTS, Stage.GENERATE, Stage.JUDGE, Stage.TRAIN, Stage.EVALUATE)
"""The stages of one iteration, in order; fetch comes before the first iteration and export after the last."""

SIDE_STAGES: Final = frozenset({Stage.REPORT})
"""Stages that run beside the sequence of the others. They read what these have left, no stage reads what they write,
and their failure never fails a run."""

ONLINE_STAGES: Final = frozenset({Stage.FETCH, Stage.EXPORT})
"""The only stages that may reach a model hub. Those that an endpoint plays a part in reach its server too."""

SHARDED_STAGES: Final = frozenset({Stage.GENERATE, Stage.JUDGE})
"""The stages that split their prompts over `generation.shards` workers."""
