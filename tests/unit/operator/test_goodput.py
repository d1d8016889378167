"""Goodput: every device-second of a run is reserved once and used for one thing, whatever happens to its attempts."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign_contract.goodput import DeviceTime, DeviceUnit
from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.api.status import StagePhase
from dynalign_operator.cli.tables import describe_goodput
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning.attempt_time import measure_attempt
from dynalign_operator.planning.goodput import count_goodput, iteration_seconds
from dynalign_operator.planning.observed import JobObservation, JobPhase, PodTime
from support.builders import T0, a_failure, a_job, a_result, a_run, minutes
from support.simulation import Fate, Simulation, disrupt, fail, succeed

NO_GPU = {stage: {"resources": {"limits": {"nvidia.com/gpu": "0"}}} for stage in map(str, ITERATION_STAGES)}
END = T0 + timedelta(seconds=100)


def pod(start: float, end: float | None, index: int = 0) -> PodTime:
    ended = None if end is None else T0 + timedelta(seconds=end)
    return PodTime(index, T0 + timedelta(seconds=start), ended)


def measured(job: JobObservation, *pods: PodTime, devices: int = 1) -> dict[str, float]:
    """The figures of an attempt that are not 0."""
    found = measure_attempt(job, pods, devices, END)
    assert found is not None
    return {name: value for name in found.seconds.figures if (value := getattr(found.seconds, name))}


def a_success(*results: StageResult | None, stage: Stage = Stage.GENERATE) -> JobObservation:
    return a_job(stage, 0).succeeded(*results, at=END).build()


def a_loss(*results: StageResult | None, stage: Stage = Stage.GENERATE) -> JobObservation:
    return a_job(stage, 0).failed(137, *results, at=END).build()


WORKED = a_result(useful_seconds=60.0, start_seconds=15.0)


@pytest.mark.parametrize(
    ("why", "job", "pods", "devices", "figures"),
    [
        (
            "what a stage reports is useful and start; the rest of its container's time it has waited",
            *(a_success(WORKED), [pod(0, 100)], 1),
            {"reserved": 100, "useful": 60, "starting": 15, "waiting": 25},
        ),
        (
            "a pod with four GPUs reserves four times its time",
            *(a_success(WORKED), [pod(0, 100)], 4),
            {"reserved": 400, "useful": 240, "starting": 60, "waiting": 100},
        ),
        (
            "an attempt without a result is wasted",
            *(a_loss(None), [pod(0, 40)], 1),
            {"reserved": 40, "wasted": 40},
        ),
        (
            "so is one whose result tells of a failure",
            *(a_loss(a_failure(1, "no")), [pod(0, 40)], 1),
            {"reserved": 40, "wasted": 40},
        ),
        (
            "the first pod of a shard that was restarted is wasted, the second is not",
            *(a_success(WORKED, WORKED), [pod(0, 20, 1), pod(0, 100, 0), pod(20, 100, 1)], 1),
            {"reserved": 200, "useful": 120, "starting": 30, "waiting": 30, "wasted": 20},
        ),
        (
            "a shard that is done is no waste although its Job failed: the next attempt finds its part",
            *(a_loss(WORKED, None), [pod(0, 80, 0), pod(0, 50, 1)], 1),
            {"reserved": 130, "useful": 60, "starting": 15, "waiting": 5, "wasted": 50},
        ),
        (
            "an attempt that finds the artifact done only verifies it; the numbers in its result are old ones",
            *(a_success(WORKED.model_copy(update={"outcome": Outcome.SKIPPED})), [pod(0, 5)], 1),
            {"reserved": 5, "starting": 5},
        ),
        (
            "what is not reported is unknown, not 0",
            *(a_success(a_result(start_seconds=15.0)), [pod(0, 100)], 1),
            {"reserved": 100, "unknown": 100},
        ),
        (
            "a stage that kept all of its parts had nothing left to do: all of it is start",
            *(a_success(a_result(useful_seconds=0.0)), [pod(0, 7)], 1),
            {"reserved": 7, "starting": 7},
        ),
        (
            "the nodes of a training work in step with the one that reports",
            *(a_success(WORKED, None, stage=Stage.TRAIN), [pod(0, 90, 0), pod(0, 80, 1)], 8),
            {"reserved": 1360, "useful": 960, "starting": 240, "waiting": 160},
        ),
        (
            "a training that lost a node is wasted as a whole",
            *(a_loss(WORKED, None, stage=Stage.TRAIN), [pod(0, 90, 0), pod(0, 80, 1)], 1),
            {"reserved": 170, "wasted": 170},
        ),
        (
            "a pod whose end was not recorded ran until its Job ended",
            *(a_loss(None), [pod(40, None)], 1),
            {"reserved": 60, "wasted": 60},
        ),
        (
            "a stage cannot have worked for longer than its container ran: clocks differ",
            *(a_success(a_result(useful_seconds=500.0, start_seconds=30.0)), [pod(0, 100)], 1),
            {"reserved": 100, "useful": 100},
        ),
        (
            "a clock that stepped back makes no negative time",
            *(a_success(a_result(useful_seconds=-3.0, start_seconds=-1.0)), [pod(50, 20)], 1),
            {},
        ),
    ],
)
def test_what_the_time_of_an_attempt_was_used_for(
    why: str, job: JobObservation, pods: list[PodTime], devices: int, figures: dict[str, float]
) -> None:
    assert measured(job, *pods, devices=devices) == figures, why


def test_pods_that_work_side_by_side_count_once_in_the_wall_clock() -> None:
    job = a_success(WORKED, WORKED)
    beside = measure_attempt(job, [pod(0, 100, 0), pod(0, 100, 1)], 1, END)
    after = measure_attempt(job, [pod(0, 100, 0), pod(100, 200, 1)], 1, END + minutes(2))
    assert beside is not None
    assert after is not None
    assert beside.useful_wall == pytest.approx(60)
    assert after.useful_wall == pytest.approx(120)


def working(job: JobObservation, **metrics: float | None) -> JobObservation:
    return succeed(job, useful_seconds=30.0, start_seconds=12.0, **metrics)


def lasting(fate: Fate) -> Fate:
    """What becomes of a Job a minute after its container has started."""
    return lambda job: job if job.start_time == job.last_progress_time else fate(job)


def test_a_run_without_trouble_wastes_nothing() -> None:
    status = Simulation(a_run().with_iterations(2).build()).finish(lasting(working)).run.status
    found = status.goodput
    assert found is not None
    assert (found.unit, found.seconds.wasted, found.seconds.unknown) == (DeviceUnit.GPU, 0, 0)
    assert found.seconds.useful == 2 * len(ITERATION_STAGES) * 30
    assert found.share == pytest.approx(found.seconds.useful / found.seconds.reserved, abs=0.001)
    each = [iteration_seconds(iteration) for iteration in status.iterations]
    assert sum((seconds for seconds in each if seconds), DeviceTime()) == found.seconds
    assert "wasted" not in describe_goodput(found)


def test_a_failed_attempt_is_wasted_until_one_reports_what_it_kept_of_it() -> None:
    """Two of the minutes of the training that was lost are in the checkpoint that the next attempt went on from."""
    patience = iter(range(3))

    def fate(job: JobObservation) -> JobObservation:
        if job.stage is not Stage.TRAIN:
            return working(job)
        if job.attempt == 1:
            return disrupt(job) if next(patience, None) is None else job
        return working(job, preserved_seconds=120.0)

    simulation = Simulation(a_run().with_iterations(1).build())
    simulation.until(Stage.TRAIN, 0, lasting(fate))
    while simulation.run.status.goodput.seconds.wasted == 0:  # type: ignore[union-attr]
        simulation.step(lasting(fate))
    lost = simulation.run.status.goodput
    assert lost is not None
    assert lost.seconds.wasted == 240
    kept = simulation.finish(lasting(fate)).run.status.goodput
    assert kept is not None
    assert kept.seconds.wasted == lost.seconds.wasted - 120
    assert kept.seconds.useful == lost.seconds.useful + 120 + 2 * 30
    assert "wasted by retries" in describe_goodput(lost)


@pytest.mark.parametrize(
    ("spec", "has_gpus", "unit"),
    [
        ({}, True, DeviceUnit.GPU),
        ({}, False, DeviceUnit.POD),
        ({"stages": NO_GPU}, True, DeviceUnit.POD),
        ({"stages": {"judge": NO_GPU["judge"]}}, True, DeviceUnit.GPU),
    ],
)
def test_devices_are_gpus_where_a_stage_has_any_and_pods_otherwise(
    spec: dict[str, Any], has_gpus: bool, unit: DeviceUnit
) -> None:
    simulation = Simulation(a_run().with_iterations(1).with_spec(**spec).build()).until(
        Stage.TRAIN, 0, lasting(working)
    )
    bare = [entry.evolve(goodput=None) for entry in simulation.run.status.iterations[0].stages]
    iteration = simulation.run.status.iterations[0].evolve(stages=tuple(bare))
    status = simulation.run.status.evolve(goodput=None, iterations=(iteration,))
    counted = count_goodput(simulation.observed(), status, BuildSettings(has_gpus=has_gpus), (), simulation.now)
    assert counted.goodput is not None
    assert counted.goodput.unit is unit
    judge = next(entry for entry in counted.iterations[0].stages if entry.stage is Stage.JUDGE)
    assert judge.goodput is not None
    judges_with_a_device = unit is DeviceUnit.POD or "stages" not in spec
    assert (judge.goodput.seconds.reserved > 0) is judges_with_a_device


def test_a_job_that_never_ran_reserved_nothing_and_one_whose_pods_are_gone_did() -> None:
    simulation = Simulation(a_run().with_iterations(1).build()).until(Stage.GENERATE, 0, lasting(working))
    (job,) = (job for job in simulation.jobs.values() if job.stage is Stage.GENERATE)
    gone = replace(disrupt(job), start_time=None, completion_time=simulation.now + minutes(3))
    before = simulation.run.status
    later = simulation.now + minutes(5)
    for phase, reserved in ((StagePhase.PENDING, 0.0), (StagePhase.RUNNING, 180.0)):
        iteration = before.iterations[0]
        stages = tuple(
            entry.evolve(phase=phase) if entry.stage is Stage.GENERATE else entry for entry in iteration.stages
        )
        run = simulation.run.with_status(before.evolve(iterations=(iteration.evolve(stages=stages),)))
        observed = replace(simulation.observed(), run=run, jobs=(gone,))
        counted = count_goodput(observed, run.status, BuildSettings(), (), later)
        assert counted.goodput is not None
        assert before.goodput is not None
        assert counted.goodput.seconds.wasted - before.goodput.seconds.wasted == reserved


moments = st.floats(0, 500, allow_nan=False).map(lambda seconds: T0 + timedelta(seconds=seconds))
figures = st.none() | st.floats(-10, 1000, allow_nan=False)
results = st.none() | st.builds(
    lambda useful, start, preserved, outcome: a_result(
        useful_seconds=useful, start_seconds=start, preserved_seconds=preserved
    ).model_copy(update={"outcome": outcome}),
    *(figures, figures, figures, st.sampled_from(Outcome)),
)
ended = st.builds(
    lambda stage, phase: replace(a_job(stage, 0).build(), phase=phase, completion_time=END),
    *(st.sampled_from(ITERATION_STAGES), st.sampled_from(JobPhase)),
)
pods = st.lists(st.builds(PodTime, st.integers(0, 3), moments, st.none() | moments), min_size=1, max_size=6)


@given(ended, st.lists(results, max_size=4), pods, st.integers(0, 8), moments)
def test_the_parts_of_an_attempt_sum_to_what_it_reserved_and_none_is_negative(
    job: JobObservation, found: list[StageResult | None], pods: list[PodTime], devices: int, now: datetime
) -> None:
    measured = measure_attempt(replace(job, results=tuple(found)), pods, devices, now)
    assert measured is not None
    seconds = measured.seconds
    assert parts(seconds) == pytest.approx(seconds.reserved, abs=0.01 * (1 + len(pods)))
    assert min(getattr(seconds, name) for name in seconds.figures) >= 0
    assert 0 <= measured.useful_wall <= (measured.until - measured.since).total_seconds() + 0.01


def parts(seconds: DeviceTime) -> float:
    return seconds.useful + seconds.starting + seconds.waiting + seconds.wasted + seconds.unknown


FATES = {
    "work": working,
    "resume": lambda job: working(job, preserved_seconds=45.0),
    "say nothing": succeed,
    "disrupt": disrupt,
    "fail": lambda job: fail(job, 1),
    "run": lambda job: job,
}


@settings(max_examples=40)
@given(st.lists(st.sampled_from([*FATES, "suspend", "go on", "clock back", "lose"]), max_size=30), st.integers(1, 2))
def test_over_any_history_the_parts_sum_and_nothing_that_was_reserved_is_forgotten(
    history: list[str], shards: int
) -> None:
    simulation = Simulation(a_run().with_iterations(2).with_shards(shards).with_policy(retries=40).build())
    reserved = 0.0
    for action in history:
        match action:
            case "suspend" | "go on":
                simulation.change_spec(suspend=action == "suspend")
            case "clock back":
                simulation.now -= minutes(3)
            case "lose" if simulation.jobs:
                simulation.lose(sorted(simulation.jobs)[-1])
        simulation.step(lasting(FATES.get(action, working)))
        found = simulation.run.status.goodput
        if found is None:
            continue
        assert parts(found.seconds) == pytest.approx(found.seconds.reserved, abs=0.1)
        assert found.seconds.reserved >= reserved
        assert found.share is None or 0 <= found.share <= 1
        reserved = found.seconds.reserved
        stages = [entry for iteration in simulation.run.status.iterations for entry in iteration.stages]
        kept = sum((entry.goodput.seconds for entry in stages if entry.goodput), DeviceTime())
        assert kept.reserved == pytest.approx(found.seconds.reserved, abs=0.1)
