"""The stages, and the order in which a run goes through them."""

from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """A command with a contract: one StageConfig in; one artifact, an exit code and a StageResult out."""

    FETCH = "fetch"
    ROLLOUT = "rollout"
    """Prompts, generate and judge of one iteration, and before them the evaluation of the iteration before, in one Job
    whose stages share an engine (`spec.rollout`). It leaves their artifacts and none of its own."""
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

ROLLOUT_STAGES: Final = (Stage.PROMPTS, Stage.GENERATE, Stage.JUDGE)
"""The stages of its own iteration whose work a rollout does, in order."""

PART_STAGES: Final = (Stage.EVALUATE, *ROLLOUT_STAGES)
"""All stages whose work a rollout can do, in order: the evaluation of the iteration before, if it is due, comes first,
for what it finds may make the others needless."""

ONLINE_STAGES: Final = frozenset({Stage.FETCH, Stage.EXPORT})
"""The only stages that may reach a model hub. Those that an endpoint plays a part in reach its server too."""

SHARDED_STAGES: Final = frozenset({Stage.ROLLOUT, Stage.GENERATE, Stage.JUDGE, Stage.EVALUATE})
"""The stages that split their prompts over `generation.shards` workers."""

JOINED_STAGES: Final = frozenset({Stage.EVALUATE})
"""Sharded stages whose artifact is one folder all the same: the worker that finds all shares there joins them into what
one worker alone would have left. The artifacts of the other sharded stages consist of their shards."""


def is_of_iteration(stage: Stage) -> bool:
    """Whether a Job of this stage belongs to one iteration."""
    return stage in ITERATION_STAGES or stage is Stage.ROLLOUT


def stages_of_job(stage: Stage) -> tuple[Stage, ...]:
    """The stages whose work a Job of this stage can do: itself, or those of a rollout."""
    return PART_STAGES if stage is Stage.ROLLOUT else (stage,)


def own_stages_of_job(stage: Stage) -> tuple[Stage, ...]:
    """The stages of its own iteration whose work a Job of this stage does."""
    return ROLLOUT_STAGES if stage is Stage.ROLLOUT else (stage,)


def iteration_of_part(stage: Stage, iteration: int) -> int:
    """The iteration that a part of a rollout belongs to: that of the rollout, or for evaluate the one before."""
    return iteration - 1 if stage is Stage.EVALUATE else iteration
