"""The estimate of a whole run, as `dynalign estimate -o json` prints it."""

from collections.abc import Iterator, Mapping
from typing import Final

from dynalign_contract.accelerators import ACCELERATORS, GIB, Hardware
from dynalign_contract.base import Model
from dynalign_contract.model_shape import ModelShape
from dynalign_contract.objective import Objective
from dynalign_contract.settings import Refresh, TrainingMethod
from dynalign_contract.stages import ITERATION_STAGES, PART_STAGES, ROLLOUT_STAGES, Stage
from dynalign_operator.api.quantities import parse_quantity
from dynalign_operator.api.rollouts import RolloutChoice, choose_rollout
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.estimate.hardware import efficiency_of
from dynalign_operator.estimate.memory import Need, engine_need, host_need, recomputes, training_need, volume_bytes
from dynalign_operator.estimate.placement import placement_of
from dynalign_operator.estimate.timing import Machine, StageSeconds, copy_time, read_bytes, time_of
from dynalign_operator.estimate.workload import Work, lengths_of, work_of_iteration

ANSWER_SHARE: Final = 0.75
"""Mean length of an answer as a share of the longest that a run allows, unless the user says otherwise."""


STAGES: Final = (Stage.FETCH, *ITERATION_STAGES, Stage.EXPORT)
"""Stages of an estimate; side stages take no accelerator and nobody waits for them."""


class StageEstimate(Model):
    """What one execution of a stage takes."""

    stage: Stage
    pods: int
    gpus: int
    """Accelerators of all pods."""
    start_seconds: float
    work_seconds: float
    """Reading, sampling, training; of fetch and export writing."""
    seconds: float
    gpu_seconds: float
    tokens_read: float = 0.0
    tokens_sampled: float = 0.0
    tokens_trained: float = 0.0
    read_gib: float
    """Weights that its nodes read from the run's volume."""
    memory_gib: float | None = None
    """Peak of one accelerator, GiB; absent for stages without any."""
    host_gib: float | None = None
    """Memory of a training pod for the optimiser, GiB; absent where that lies on the accelerators."""


class RunEstimate(Model):
    """What a run takes, by arithmetic on its specification."""

    hardware: Hardware
    answer_tokens: float
    """Mean length of an answer that the estimate assumes."""
    iteration_seconds: float
    """An iteration after the first, with evaluation."""
    useful_share: float
    """Accelerator-seconds of work, divided by those of the largest stage's accelerators over the whole iteration."""
    run_seconds: float
    gpu_hours: float
    """Accelerator-hours that the run's pods hold, over the whole run; 0 on CPUs."""
    cost: float | None = None
    """`gpu_hours` times the price that the user gave."""
    volume_gib: float
    stages: tuple[StageEstimate, ...]
    """Fetch, the stages of an iteration after the first, export."""
    problems: tuple[str, ...] = ()
    """What does not fit, and what to change."""


def estimate_run(
    spec: AlignmentRunSpec,
    objective: Objective | None,
    shape: ModelShape,
    hardware: Hardware,
    *,
    answer_share: float = ANSWER_SHARE,
    price: float | None = None,
    volume_bandwidth: float | None = None,
) -> RunEstimate:
    """Estimate a run. Assumes an objective of four aspects for None.

    `price`: money for an hour of one accelerator; `volume_bandwidth`: bytes a second of the run's volume.
    """
    lengths, choice = lengths_of(spec, answer_share), choose_rollout(spec)
    machines = {
        stage: Machine(
            ACCELERATORS[hardware],
            efficiency_of(hardware, volume_bandwidth),
            shape,
            placement_of(spec, _pods_of(stage, choice), hardware),
            _policies(spec, stage),
        )
        for stage in STAGES
    }
    spec = _with_recomputation(spec, machines[Stage.TRAIN])
    usual, first = (work_of_iteration(spec, objective, lengths, first=is_first) for is_first in (False, True))
    stages = _stages(spec, usual, machines)
    if choice.is_fused:
        stages = tuple(_in_rollout(spec, hardware, stage, choice) for stage in stages)
    found = {stage.stage: stage for stage in stages}
    once = _once(usual, first, machines, choice)
    times = executions(spec)
    run_seconds = sum(once.values()) + sum(found[stage].seconds * times[stage] for stage in STAGES)
    held = sum(found[stage].gpus * seconds for stage, seconds in once.items())
    held += sum(found[stage].gpu_seconds * times[stage] for stage in STAGES)
    hours = 0.0 if hardware is Hardware.CPU else held / 3600
    iteration = sum(found[stage].seconds for stage in ITERATION_STAGES)
    reserved = max(found[stage].gpus for stage in ITERATION_STAGES) * iteration
    useful = sum(found[stage].work_seconds * machines[stage].placement.total for stage in ITERATION_STAGES)
    volume = volume_bytes(spec, machines[Stage.TRAIN])
    return RunEstimate(
        hardware=hardware,
        answer_tokens=round(lengths.answer, 1),
        iteration_seconds=round(iteration, 1),
        useful_share=round(useful / reserved, 3) if reserved else 0.0,
        run_seconds=round(run_seconds, 1),
        gpu_hours=round(hours, 2),
        cost=None if price is None else round(hours * price, 2),
        volume_gib=round(volume / GIB, 1),
        stages=stages,
        problems=tuple(_problems(spec, machines, volume)),
    )


def _pods_of(stage: Stage, choice: RolloutChoice) -> Stage:
    """The stage whose pods do a stage: in a rollout all of them write prompts."""
    return Stage.ROLLOUT if choice.is_fused and stage in ROLLOUT_STAGES else stage


def _policies(spec: AlignmentRunSpec, stage: Stage) -> int:
    """Whole policies that a stage checks, of an iteration after the first: evaluate also the one before."""
    if spec.training.method is not TrainingMethod.FULL or stage not in ITERATION_STAGES:
        return 0
    return 2 if stage is Stage.EVALUATE else 1


def _once(
    usual: Mapping[Stage, Work], first: Mapping[Stage, Work], machines: Mapping[Stage, Machine], choice: RolloutChoice
) -> dict[Stage, float]:
    """Seconds that a run takes once beside those of its usual iterations."""
    once = {
        stage: time_of(first[stage], machines[stage]).total - time_of(usual[stage], machines[stage]).total
        for stage in (Stage.PROMPTS, Stage.EVALUATE)
    }
    if choice.has_evaluation:  # the last evaluation has a Job of its own
        once[Stage.EVALUATE] += time_of(usual[Stage.EVALUATE], machines[Stage.EVALUATE]).start
    return once


def _stages(
    spec: AlignmentRunSpec, work: Mapping[Stage, Work], machines: Mapping[Stage, Machine]
) -> tuple[StageEstimate, ...]:
    """Fetch, the stages of an iteration, export."""
    stages = [_copy(machines[Stage.FETCH], Stage.FETCH)]
    host = host_need(spec, machines[Stage.TRAIN])
    for stage in ITERATION_STAGES:
        need = _need(spec, stage, machines[stage])
        stages.append(
            _stage(machines[stage], stage, time_of(work[stage], machines[stage])).model_copy(
                update={
                    "tokens_read": round(work[stage].read),
                    "tokens_sampled": round(work[stage].written),
                    "tokens_trained": round(work[stage].trained),
                    "memory_gib": round(need.bytes / GIB, 1),
                    "host_gib": None if host is None or stage is not Stage.TRAIN else round(host.bytes / GIB, 1),
                }
            )
        )
    return (*stages, _copy(machines[Stage.EXPORT], Stage.EXPORT))


def _in_rollout(
    spec: AlignmentRunSpec, hardware: Hardware, estimate: StageEstimate, choice: RolloutChoice
) -> StageEstimate:
    """A stage as a part of a fused rollout: every part holds all its pods, and the first one starts their engines.

    The start is counted with prompts, or with generate where these are written once, though an evaluation comes first.
    """
    if estimate.stage not in (PART_STAGES if choice.has_evaluation else ROLLOUT_STAGES):
        return estimate
    starts = Stage.GENERATE if spec.prompts.refresh is Refresh.ONCE else ROLLOUT_STAGES[0]
    start = estimate.start_seconds if estimate.stage is starts else 0.0
    placement, seconds = placement_of(spec, Stage.ROLLOUT, hardware), start + estimate.work_seconds
    return estimate.model_copy(
        update={
            "pods": placement.pods,
            "gpus": placement.total,
            "start_seconds": start,
            "seconds": round(seconds, 1),
            "gpu_seconds": round(placement.total * seconds, 1),
            "read_gib": estimate.read_gib if start else 0.0,
        }
    )


def _copy(machine: Machine, stage: Stage) -> StageEstimate:
    return _stage(machine, stage, copy_time(machine, merged=stage is Stage.EXPORT))


def _stage(machine: Machine, stage: Stage, time: StageSeconds) -> StageEstimate:
    gpus = machine.placement.total
    return StageEstimate(
        stage=stage,
        pods=machine.placement.pods,
        gpus=gpus,
        start_seconds=round(time.start, 1),
        work_seconds=round(time.total - time.start, 1),
        seconds=round(time.total, 1),
        gpu_seconds=round(gpus * time.total, 1),
        read_gib=round(read_bytes(machine) / GIB, 1),
    )


def _need(spec: AlignmentRunSpec, stage: Stage, machine: Machine) -> Need:
    return training_need(spec, machine) if stage is Stage.TRAIN else engine_need(spec, machine)


def _with_recomputation(spec: AlignmentRunSpec, machine: Machine) -> AlignmentRunSpec:
    """The specification with the answer to whether training computes activations again."""
    training = spec.training.model_copy(update={"gradient_checkpointing": recomputes(spec, machine)})
    return spec.model_copy(update={"training": training})


def executions(spec: AlignmentRunSpec) -> Mapping[Stage, int]:
    """How often a run executes each stage."""
    once = {Stage.FETCH: 1, Stage.EXPORT: 1, Stage.EVALUATE: -(-spec.iterations // spec.evaluation.every)}
    if spec.prompts.refresh is Refresh.ONCE:
        once[Stage.PROMPTS] = 1
    return {stage: once.get(stage, spec.iterations) for stage in STAGES}


def _problems(spec: AlignmentRunSpec, machines: Mapping[Stage, Machine], volume: float) -> Iterator[str]:
    for name, stage in (("an engine", Stage.GENERATE), ("training", Stage.TRAIN)):
        machine = machines[stage]
        need = _need(spec, stage, machine)
        if not need.fits:
            yield (
                f"{name} needs {need.bytes / GIB:.0f} GiB of each {machine.accelerator.name}, which gives "
                f"{need.available / GIB:.0f}: {need.remedy}"
            )
    host = host_need(spec, machines[Stage.TRAIN])
    if host is not None and not host.fits:
        yield (
            f"training keeps {host.bytes / GIB:.0f} GiB of optimiser states in the memory of each pod, which asks for "
            f"{host.available / GIB:.0f}: {host.remedy}"
        )
    size = None if spec.storage.existing_claim else float(parse_quantity(spec.storage.size))
    if size is not None and volume > size:
        yield (
            f"the run writes about {volume / GIB:.0f} GiB, and spec.storage.size is {spec.storage.size}: raise it "
            "before the run is created, for it cannot be changed later"
        )
