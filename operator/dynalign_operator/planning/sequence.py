"""Which step comes next: fetch, N x (prompts, generate, judge, train, evaluate), export; and reports beside these."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from dynalign_contract.settings import OnRegression, Refresh
from dynalign_contract.stages import ITERATION_STAGES, PART_STAGES, ROLLOUT_STAGES, Stage
from dynalign_operator.api.rollouts import choose_rollout
from dynalign_operator.api.status import (
    AlignmentRunStatus,
    IterationStatus,
    Phase,
    ReportStatus,
    StagePhase,
    StageStatus,
)
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec, ReportTime
from dynalign_operator.planning.observed import Step


def next_step(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> Step | None:
    """The first step that is not done; None when the run is.

    An iteration is closed once a later one has begun, and a stage once a later one of its iteration has succeeded: a
    changed spec never sends a run back. Raising `iterations` on a finished run gives it a next iteration. Only damage
    sends it back: stages marked `verify_again` come first, each in a Job of its own.
    """
    step = _first_to_verify(status)
    if step is not None:
        return step
    step = _next_in_sequence(spec, status)
    if step is None or step.iteration is None or step.stage not in PART_STAGES:
        return step
    choice = choose_rollout(spec)
    if step.stage in ROLLOUT_STAGES:
        return Step(Stage.ROLLOUT, step.iteration) if choice.is_fused else step
    is_followed = step.iteration + 1 < spec.iterations
    return Step(Stage.ROLLOUT, step.iteration + 1) if choice.has_evaluation and is_followed else step


def rollout_stages(spec: AlignmentRunSpec, status: AlignmentRunStatus, iteration: int) -> tuple[Stage, ...]:
    """The stages whose work is left for a rollout of this iteration, in order; evaluate is of the iteration before."""
    found = next((entry for entry in status.iterations if entry.index == iteration), IterationStatus(index=iteration))
    first = _next_stage(spec, found)
    required = [stage for stage in required_stages(spec, iteration) if stage in ROLLOUT_STAGES]
    left = tuple(required[required.index(first) :]) if first in required else ()
    is_due = _next_in_sequence(spec, status) == Step(Stage.EVALUATE, iteration - 1)
    return (Stage.EVALUATE, *left) if left and is_due and choose_rollout(spec).has_evaluation else left


def _next_in_sequence(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> Step | None:
    if not is_done(status.fetch):
        return Step(Stage.FETCH)
    iteration = last_iteration(status)
    if iteration is None:
        return Step(first_stage(spec, 0), 0)
    stage = _next_stage(spec, iteration)
    if stage is not None:
        return Step(stage, iteration.index)
    if iteration.index + 1 < spec.iterations and not is_stopped(spec, status):
        return Step(first_stage(spec, iteration.index + 1), iteration.index + 1)
    return None if is_done(status.export) else Step(Stage.EXPORT)


@dataclass(frozen=True)
class Occasion:
    """What a report is due for."""

    iteration: int | None
    """Latest finished iteration, from 0."""
    run_completion_time: datetime | None = None
    """When the run succeeded or failed; None for a run that goes on."""


def next_side_step(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> Occasion | None:
    """What the report has not been tried for yet: a finished iteration, or the end of the run.

    A run that failed before anything was fetched has left nothing to report.
    """
    if spec.report.when is ReportTime.NEVER or not is_done(status.fetch):
        return None
    known = status.report or ReportStatus()
    finished = finished_iteration(spec, status)
    if status.phase in (Phase.SUCCEEDED, Phase.FAILED):
        is_new = status.completion_time is not None and status.completion_time != known.run_completion_time
        return Occasion(finished, status.completion_time) if is_new else None
    if finished is None or spec.report.when is ReportTime.AT_END:
        return None
    return Occasion(finished) if known.iteration is None or finished > known.iteration else None


def finished_iteration(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> int | None:
    """Index of the latest iteration whose stages are done; None before the first."""
    iteration = last_iteration(status)
    if iteration is None:
        return None
    index = iteration.index if _next_stage(spec, iteration) is None else iteration.index - 1
    return index if index >= 0 else None


def _first_to_verify(status: AlignmentRunStatus) -> Step | None:
    if status.fetch is not None and status.fetch.verify_again:
        return Step(Stage.FETCH)
    marked = (
        Step(stage.stage, entry.index)
        for entry in status.iterations
        for stage in entry.stages
        if stage.verify_again and stage.stage in ITERATION_STAGES
    )
    return next(marked, None)


def count_following(spec: AlignmentRunSpec, current: Step) -> Counter[Stage]:
    """How many steps of each stage follow the current step, export aside, if nothing stops the run early.

    The time that this takes does not depend on the number of iterations.
    """
    if current.stage is Stage.EXPORT:
        return Counter()
    index = current.iteration or 0
    own = required_stages(spec, index)
    last = ROLLOUT_STAGES[-1] if current.stage is Stage.ROLLOUT else current.stage
    if current.iteration is None:
        following = Counter(own)
    elif last in own:
        following = Counter(own[own.index(last) + 1 :])
    else:
        return Counter()
    later = max(0, spec.iterations - index - 1)
    if later:
        every = spec.evaluation.every
        following.update(dict.fromkeys((Stage.GENERATE, Stage.JUDGE, Stage.TRAIN), later))
        following[Stage.PROMPTS] += 0 if spec.prompts.refresh is Refresh.ONCE else later
        following[Stage.EVALUATE] += -(-spec.iterations // every) - (index + 1) // every
    return +following


def required_stages(spec: AlignmentRunSpec, iteration: int) -> tuple[Stage, ...]:
    """Stages of an iteration: prompts may be written once only, and not every iteration need be evaluated."""
    return stages_of_iteration(iteration, spec.iterations, spec.prompts.refresh, spec.evaluation.every)


def stages_of_iteration(iteration: int, iterations: int, refresh: Refresh, every: int) -> tuple[Stage, ...]:
    """Stages of an iteration, from the only fields of a spec that decide about them."""
    left_out = set()
    if iteration > 0 and refresh is Refresh.ONCE:
        left_out.add(Stage.PROMPTS)
    if (iteration + 1) % every != 0 and iteration + 1 < iterations:
        left_out.add(Stage.EVALUATE)
    return tuple(stage for stage in ITERATION_STAGES if stage not in left_out)


def first_stage(spec: AlignmentRunSpec, iteration: int) -> Stage:
    """The stage with which an iteration begins."""
    return required_stages(spec, iteration)[0]


def is_done(stage: StageStatus | None) -> bool:
    """Whether a stage has an artifact to show."""
    return stage is not None and stage.phase is StagePhase.SUCCEEDED and stage.artifact is not None


def is_stopped(spec: AlignmentRunSpec, status: AlignmentRunStatus) -> bool:
    """Whether the loop ends early because the model got worse (`evaluation.onRegression: Stop`)."""
    iteration = last_iteration(status)
    return spec.evaluation.on_regression is OnRegression.STOP and iteration is not None and iteration.regressed


def last_iteration(status: AlignmentRunStatus) -> IterationStatus | None:
    """The iteration that has begun last.

    A rollout that has finished none of its stages begins no iteration: it may be at the evaluation of the one before.
    """
    return max(filter(_has_begun, status.iterations), key=lambda iteration: iteration.index, default=None)


def _has_begun(iteration: IterationStatus) -> bool:
    return not iteration.stages or any(stage.stage is not Stage.ROLLOUT for stage in iteration.stages)


def _next_stage(spec: AlignmentRunSpec, iteration: IterationStatus) -> Stage | None:
    finished = [stage.stage for stage in iteration.stages if is_done(stage) and stage.stage in ITERATION_STAGES]
    reached = max((ITERATION_STAGES.index(stage) for stage in finished), default=-1)
    required = required_stages(spec, iteration.index)
    return next((stage for stage in ITERATION_STAGES[reached + 1 :] if stage in required), None)
