"""The budget of a run: the stage that would exceed `policy.budget` is not started. Pure.

It is looked at only where a Job is about to be created, so a changed budget stops nothing that runs. What was used is
what `status.goodput` counts as reserved.
"""

import math
from datetime import datetime
from typing import Final

from dynalign_contract.accelerators import Hardware
from dynalign_contract.goodput import DeviceUnit
from dynalign_contract.stages import ITERATION_STAGES, Stage, is_of_iteration
from dynalign_operator.api.status import AlignmentRunStatus, ConditionType, StagePhase
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.estimate.run_estimate import estimate_run
from dynalign_operator.estimate.shapes import known_shape
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.manifests.overrides import count_gpus
from dynalign_operator.planning import reasons
from dynalign_operator.planning.approvals import start_without_wait
from dynalign_operator.planning.goodput import count_devices
from dynalign_operator.planning.observed import Step
from dynalign_operator.planning.sequence import rollout_stages
from dynalign_operator.planning.stored_run import Blocker

_HOUR: Final = 3600.0
_ASSUMED: Final = Hardware.H100
"""Accelerator of the estimate for a first iteration: a run does not say which it gets."""


def check_budget(run: AlignmentRun, status: AlignmentRunStatus, step: Step, settings: BuildSettings) -> Blocker | None:
    """Why a stage may not start; None where it may. `status` counts every attempt that has ended.

    A stage without GPUs may always start, and so may every stage where there are no GPUs.
    """
    budget = run.spec.policy.budget
    if budget is None or not is_of_iteration(step.stage) or not settings.has_gpus:
        return None
    if not count_devices(run, step.stage, settings):
        return None
    used = used_gpu_hours(status)
    need, source = _need(run, status, step)
    if used + need <= budget.gpu_hours and used < budget.gpu_hours:
        return None
    enough = math.ceil((used + need) * 10 + 0.01) / 10
    return Blocker(
        reasons.BUDGET_EXCEEDED,
        f"spec.policy.budget.gpuHours is {_exact(budget.gpu_hours)}. The run has used {_round(used)} GPU-hours, "
        f"and {step} {source}. No Job runs and nothing is lost: raise spec.policy.budget.gpuHours to {_exact(enough)} "
        "or more, and the run goes on with this stage.",
    )


def is_held_by_budget(status: AlignmentRunStatus) -> bool:
    """Whether the run waits for a higher budget."""
    return any(
        condition.type is ConditionType.STALLED
        and condition.status == "True"
        and condition.reason == reasons.BUDGET_EXCEEDED
        for condition in status.conditions
    )


def start_without_holds(before: AlignmentRunStatus, status: AlignmentRunStatus, now: datetime) -> datetime:
    """The start from which the deadline counts: now for a run that was held until now, and no wait for a person."""
    return now if is_held_by_budget(before) else start_without_wait(status, now)


def used_gpu_hours(status: AlignmentRunStatus) -> float:
    """GPU-hours that the attempts which have ended have reserved."""
    goodput = status.goodput
    return goodput.seconds.reserved / _HOUR if goodput is not None and goodput.unit is DeviceUnit.GPU else 0.0


def describe_budget(run: AlignmentRun) -> str:
    """`12.3 of 200 GPU-hours of spec.policy.budget are used.`; empty for a run without a budget."""
    budget = run.spec.policy.budget
    if budget is None:
        return ""
    return (
        f"{_round(used_gpu_hours(run.status))} of {_exact(budget.gpu_hours)} GPU-hours of spec.policy.budget are used."
    )


def budget_note(run: AlignmentRun) -> str:
    """What the user should know of a budget that can never be reached; empty where it can."""
    if run.spec.policy.budget is None or any(count_gpus(run.spec, stage) for stage in ITERATION_STAGES):
        return ""
    return "spec.policy.budget counts GPU-hours, and no stage uses a GPU: it never holds this run"


def _need(run: AlignmentRun, status: AlignmentRunStatus, step: Step) -> tuple[float, str]:
    """GPU-hours of a stage, and where that figure comes from, as the end of a sentence."""
    others = (
        entry for iteration in status.iterations if iteration.index != step.iteration for entry in iteration.stages
    )
    known = (entry.goodput for entry in others if entry.stage is step.stage and entry.phase is StagePhase.SUCCEEDED)
    measured = [goodput.seconds.reserved / _HOUR for goodput in known if goodput and goodput.seconds.reserved]
    if measured:
        mean = sum(measured) / len(measured)
        return mean, f"would take about {_round(mean)}, the mean of earlier iterations"
    estimated = _estimate(run, status, step)
    if estimated is None:
        return 0.0, "would take more; how much is not known before it has run once"
    return estimated, f"is estimated to take {_round(estimated)} on {_ASSUMED} (`dynalign estimate`)"


def _estimate(run: AlignmentRun, status: AlignmentRunStatus, step: Step) -> float | None:
    """GPU-hours of a stage by arithmetic; None for a model whose sizes are not known."""
    shape = known_shape(run.spec.model.uri)
    if shape is None:
        return None
    found = estimate_run(run.spec, None, shape, _ASSUMED)
    is_rollout = step.stage is Stage.ROLLOUT
    stages = rollout_stages(run.spec, status, step.iteration or 0) if is_rollout else (step.stage,)
    return sum(entry.gpu_seconds / _HOUR for entry in found.stages if entry.stage in stages)


def _round(hours: float) -> str:
    """A figure with one decimal place, or with two digits where it is small."""
    return f"{hours:.1f}" if hours >= 1 or not hours else f"{hours:.2g}"


def _exact(hours: float) -> str:
    """A budget as it is written in a run file: no digit is lost, for what is asked for has to be enough."""
    return f"{hours:.12f}".rstrip("0").rstrip(".")
