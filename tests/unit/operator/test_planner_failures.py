"""What the planner does about failures, disruptions and regressions."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from dynalign_contract.errors import MemoryFullError
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.result import Outcome, ResultError, StageResult
from dynalign_contract.settings import OnRegression
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import ConditionType, Phase, StagePhase, StageStatus
from dynalign_operator.planning import reasons
from dynalign_operator.planning.observed import JobObservation
from dynalign_operator.planning.planner import retry
from support.builders import T0, a_failure, a_job, a_run, minutes
from support.planning import condition, config_of, exits, fate_of, planned, started
from support.simulation import Fate, Simulation, disrupt, succeed


@pytest.mark.parametrize(
    ("code", "attempts", "phase", "reason"),
    [
        (1, 4, Phase.FAILED, reasons.RETRIES_EXHAUSTED),
        (137, 4, Phase.FAILED, reasons.RETRIES_EXHAUSTED),
        (0, 4, Phase.FAILED, reasons.RETRIES_EXHAUSTED),  # "success" without a result
        (10, 1, Phase.FAILED, reasons.BAD_CONFIG),
        (11, 1, Phase.FAILED, reasons.BAD_INPUT),
        (12, 1, Phase.FAILED, reasons.UNFIT),
        (ExitCode.REPEATED, 1, Phase.FAILED, reasons.REPEATED_ERROR),
    ],
)
def test_failures_by_class(code: int, attempts: int, phase: Phase, reason: str) -> None:
    stage = "train of iteration 1"
    ended = Simulation(a_run().with_policy(retries=3).build()).finish(fate_of(stage, *[exits(code)] * 9))
    assert [attempt for name, attempt in ended.steps_created() if name == stage] == list(range(1, attempts + 1))
    assert ended.run.status.phase is phase
    stalled = condition(ended.run.status, ConditionType.STALLED)
    assert (stalled.status, stalled.reason) == ("True", reason)


@pytest.mark.parametrize("fate", [disrupt, exits(143)])
def test_disruptions_are_free(fate: Fate) -> None:
    done = Simulation(a_run().with_policy(retries=0).build()).finish(fate_of("train of iteration 0", *[fate] * 7))
    assert done.run.status.phase is Phase.SUCCEEDED
    assert ("train of iteration 0", 8) in done.steps_created()
    assert reasons.STAGE_DISRUPTED in [event.reason for event in done.events]


def test_disruptions_in_a_row_wait_longer_each_time_and_say_so() -> None:
    """What evicts every attempt at once would otherwise make Jobs without end."""
    simulation = Simulation(a_run().build())
    created: list[datetime] = []
    while len(created) < 8:
        count = len(simulation.created)
        simulation.step(disrupt)
        created += [simulation.now] * (len(simulation.created) - count)
    assert simulation.run.status.fetch is not None
    assert simulation.run.status.fetch.failures == 0
    assert simulation.run.status.fetch.disruptions >= 6
    waits = [later - earlier for earlier, later in pairwise(created)]
    assert waits == sorted(waits)
    assert waits[-1] >= minutes(5) > waits[0]
    while simulation.run.status.fetch.phase is not StagePhase.FAILED:
        simulation.step(disrupt)
        assert simulation.run.status.fetch is not None
    (said,) = (c.message for c in simulation.run.status.conditions if c.type is ConditionType.PROGRESSING)
    assert "was disrupted and will be repeated after a pause, for it was the" in said
    simulation.finish()
    assert simulation.run.status.fetch is not None
    assert simulation.run.status.fetch.disruptions == 0


@pytest.mark.parametrize("stage", [Stage.FETCH, Stage.EXPORT])
def test_a_status_edited_by_hand_never_makes_the_planner_raise(stage: Stage) -> None:
    simulation = Simulation(a_run().build()).until(Stage.JUDGE, 0)
    status = simulation.run.status
    (iteration,) = status.iterations
    foreign = StageStatus(stage=stage, verify_again=True)
    edited = iteration.model_copy(update={"stages": (foreign, *iteration.stages)})
    simulation.run = simulation.run.model_copy(update={"status": status.model_copy(update={"iterations": (edited,)})})
    assert simulation.finish().run.status.phase is Phase.SUCCEEDED


def test_too_little_memory_is_a_reason_of_its_own() -> None:
    told = MemoryFullError("lower it")
    result = StageResult(
        outcome=Outcome.FAILED,
        exit_code=told.exit_code,
        error=ResultError(reason=told.reason, message=str(told)),
    )
    job = a_job(Stage.FETCH).failed(told.exit_code, result).build()
    stalled = condition(planned(started().run, job).status, ConditionType.STALLED)
    assert (stalled.status, stalled.reason, stalled.message) == ("True", reasons.OUT_OF_MEMORY, "lower it")


def test_a_stage_own_sentence_reaches_the_user() -> None:
    job = a_job(Stage.FETCH).failed(12, a_failure(12, "the judge prefers empty answers")).build()
    decided = planned(started().run, job)
    assert condition(decided.status, ConditionType.STALLED).message == "the judge prefers empty answers"
    assert decided.status.fetch is not None
    assert decided.status.fetch.message == "the judge prefers empty answers"


@pytest.mark.parametrize("stage", ["judge", "evaluate"])
def test_shards_have_been_restarted_by_their_job_already(stage: str) -> None:
    step = f"{stage} of iteration 0"
    simulation = Simulation(a_run().with_shards(3).build()).finish(fate_of(step, exits(1)))
    assert simulation.run.status.phase is Phase.FAILED
    assert [entry for entry in simulation.steps_created() if entry[0] == step] == [(step, 1)]


def test_repeated_failures_wait_longer_each_time() -> None:
    simulation = started()
    pauses = []
    for attempt in range(1, 4):
        job = a_job(Stage.FETCH).of_attempt(attempt).failed(1, at=simulation.now).build()
        simulation.jobs = {job.name: job}
        decided = simulation.plan()
        pauses.append(timedelta(0) if decided.create else (decided.wake_at or T0) - simulation.now)
        simulation.now += timedelta(minutes=5)
        simulation.plan()
    assert pauses == [timedelta(0), timedelta(seconds=10), timedelta(seconds=20)]


def worse(job: JobObservation, iteration: int) -> JobObservation:
    if job.stage is Stage.EVALUATE and job.iteration == iteration:
        return succeed(job, win_rate=0.2, regressed=1.0)
    return succeed(job)


@pytest.mark.parametrize(
    ("action", "iterations_begun", "exported"),
    [
        (OnRegression.CONTINUE, 4, "iteration-003"),
        (OnRegression.STOP, 3, "iteration-001"),
        (OnRegression.ROLLBACK, 4, "iteration-003"),
    ],
)
def test_what_a_regression_does(action: OnRegression, iterations_begun: int, exported: str) -> None:
    run = a_run().with_iterations(4).with_spec(evaluation={"onRegression": str(action)}).build()
    done = Simulation(run).finish(lambda job: worse(job, 2))
    assert done.run.status.phase is Phase.SUCCEEDED
    assert len(done.run.status.iterations) == iterations_begun
    assert config_of(done, "export").params.policy.version == exported  # type: ignore[union-attr]
    degraded = condition(done.run.status, ConditionType.DEGRADED)
    assert (degraded.status == "True") is (action is OnRegression.STOP)


@pytest.mark.parametrize(
    ("action", "start"), [(OnRegression.CONTINUE, "iteration-002"), (OnRegression.ROLLBACK, "iteration-001")]
)
def test_where_the_iteration_after_a_regression_starts(action: OnRegression, start: str) -> None:
    run = a_run().with_iterations(4).with_spec(evaluation={"onRegression": str(action)}).build()
    done = Simulation(run).finish(lambda job: worse(job, 2))
    for stage in ("generate", "train"):
        config = config_of(done, f"{stage} of iteration 3")
        assert config.params.policy.version == start  # type: ignore[union-attr]
        assert config.inputs[start] == config.params.policy.adapter  # type: ignore[union-attr]


def test_a_failed_run_stays_failed_until_its_spec_changes() -> None:
    simulation = Simulation(a_run().build()).finish(fate_of("judge of iteration 0", exits(12)))
    assert simulation.plan().create == ()
    simulation.change_spec(seed=7)
    simulation.finish()
    assert simulation.run.status.phase is Phase.SUCCEEDED
    assert ("judge of iteration 0", 2) in simulation.steps_created()


def test_a_failed_run_can_be_told_to_try_again() -> None:
    simulation = Simulation(a_run().with_policy(retries=1).build()).finish(
        fate_of("judge of iteration 0", exits(1), exits(1))
    )
    simulation.run = retry(simulation.run)
    simulation.finish()
    assert simulation.run.status.phase is Phase.SUCCEEDED
    assert condition(simulation.run.status, ConditionType.STALLED).status == "False"
    assert ("judge of iteration 0", 3) in simulation.steps_created()


def test_trying_again_changes_nothing_about_other_runs() -> None:
    run = started().run
    assert retry(run) is run
