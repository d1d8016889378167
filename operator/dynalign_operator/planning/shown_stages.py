"""Entries of a run's stages for people, who see the stages of a rollout and not the rollout. Pure."""

from dynalign_contract.stages import PART_STAGES, Stage, iteration_of_part
from dynalign_operator.api.status import IterationStatus, StagePhase, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.observed import Step
from dynalign_operator.planning.sequence import rollout_stages
from dynalign_operator.planning.stage_status import stage_status


def shown_stages(run: AlignmentRun, iteration: IterationStatus) -> tuple[StageStatus, ...]:
    """The entries of an iteration: those of the stages themselves, never of a rollout beside its own.

    While a rollout is the current step, the stages that are left of it stand as it does, or, as soon as it says which
    one it is at, as they do within it. Its evaluation is among those of the iteration before.
    """
    others = (entry for entry in iteration.stages if entry.stage is not Stage.ROLLOUT)
    entries: dict[Stage, StageStatus] = {entry.stage: entry for entry in others}
    current = run.status.iteration
    if run.status.stage is Stage.ROLLOUT and current is not None and current in (iteration.index, iteration.index + 1):
        rollout = stage_status(run.status, Step(Stage.ROLLOUT, current))
        for stage in rollout_stages(run.spec, run.status, current):
            if iteration_of_part(stage, current) == iteration.index:
                entries[stage] = rollout.evolve(stage=stage, phase=_phase_within(rollout, stage), goodput=None)
    return tuple(entries[stage] for stage in Stage if stage in entries)


def _phase_within(rollout: StageStatus, stage: Stage) -> StagePhase:
    if rollout.phase is not StagePhase.RUNNING or rollout.part is None:
        return rollout.phase
    place, reached = PART_STAGES.index(stage), PART_STAGES.index(rollout.part)
    if place == reached:
        return StagePhase.RUNNING
    return StagePhase.SUCCEEDED if place < reached else StagePhase.PENDING
