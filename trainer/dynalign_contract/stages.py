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


ITERATION_STAGES: Final = (Stage.PROMPTS, Stage.GENERATE, Stage.JUDGE, Stage.TRAIN, Stage.EVALUATE)
"""The stages of one iteration, in order; fetch comes before the first iteration and export after the last."""

ONLINE_STAGES: Final = frozenset({Stage.FETCH, Stage.EXPORT})
"""The only stages that may reach a model hub. Those that an endpoint plays a part in reach its server too."""

SHARDED_STAGES: Final = frozenset({Stage.GENERATE, Stage.JUDGE})
"""The stages that split their prompts over `generation.shards` workers."""
