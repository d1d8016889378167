"""Whatever happens to a run, running the planner against its own output brings it to an end, and never does harm.

The simulation itself refuses a Job that is created twice or beside another one.
"""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign_contract.result import StageResult
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.api.status import (
    AlignmentRunStatus,
    ConditionType,
    IterationStatus,
    Phase,
    StagePhase,
    StageStatus,
)
from dynalign_operator.api.v1alpha1 import Rollout
from dynalign_operator.planning import reasons
from dynalign_operator.planning.names import job_name
from dynalign_operator.planning.observed import DISRUPTED, JobObservation, JobPhase, Step
from dynalign_operator.planning.planner import retry
from support.builders import T0, a_result, a_run, an_artifact, minutes
from support.simulation import Fate, Simulation, disrupt, fail, succeed

CODES = (0, 1, 2, 10, 11, 12, 75, 137, 139, 143)
ACTIONS = (
    *("succeed", "succeed", "succeed", "wait", "disrupt"),
    *(f"exit {code}" for code in CODES),
    *("suspend", "resume", "raise", "lose", "write lost", "edit", "retry", "regress", "unjoined"),
    *("fuse", "separate", "leave it"),
)
STEPS = 400

quick = settings(max_examples=60)


def regress(job: JobObservation) -> JobObservation:
    return succeed(job, regressed=1.0) if job.stage in (Stage.EVALUATE, Stage.ROLLOUT) else succeed(job)


def leave_unjoined(job: JobObservation) -> JobObservation:
    """The Job succeeds; pods have left their shares of an evaluation, and nobody has joined them."""
    done = succeed(job)
    if job.stage not in (Stage.EVALUATE, Stage.ROLLOUT) or len(job.results) == 1:
        return done
    return replace(done, results=tuple(a_result(path=f"share-{index}") for index in range(len(job.results))))


def fate_of(action: str) -> Fate:
    if action.startswith("exit "):
        return lambda job: fail(job, int(action.removeprefix("exit ")))
    fates: dict[str, Fate] = {
        "wait": lambda job: job,
        "disrupt": disrupt,
        "regress": regress,
        "unjoined": leave_unjoined,
    }
    return fates.get(action, succeed)


def act(simulation: Simulation, action: str) -> None:
    match action:
        case "suspend" | "resume":
            simulation.change_spec(suspend=action == "suspend")
        case "raise":
            simulation.change_spec(iterations=min(4, simulation.run.spec.iterations + 1))
        case "edit":
            simulation.change_spec(seed=simulation.run.spec.seed + 1)
        case "fuse" | "separate" | "leave it":
            rollouts = {"fuse": Rollout.FUSED, "separate": Rollout.SEPARATE, "leave it": Rollout.AUTO}
            simulation.change_spec(rollout=rollouts[action])
        case "retry":
            simulation.run = retry(simulation.run)
        case "lose" if simulation.jobs:
            simulation.lose(sorted(simulation.jobs)[-1])
    simulation.step(fate_of(action), status_is_lost=action == "write lost")


runs = st.builds(
    lambda iterations, shards, retries, every, refresh, action, rollout: (
        a_run()
        .with_iterations(iterations)
        .with_shards(shards)
        .with_policy(retries=retries, deadline="1000d")
        .with_spec(evaluation={"every": every, "onRegression": action}, prompts={"refresh": refresh}, rollout=rollout)
        .build()
    ),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from(["EveryIteration", "Once"]),
    st.sampled_from(["Continue", "Stop", "Rollback"]),
    st.sampled_from(list(Rollout)),
)


def attempts_are_monotone(simulation: Simulation) -> bool:
    """Later Jobs of a step have higher attempts; the same one only when it was lost."""
    by_step: dict[Step, list[int]] = {}
    for bundle in simulation.created:
        by_step.setdefault(bundle.step, []).append(bundle.attempt)
    return all(before <= after for attempts in by_step.values() for before, after in pairwise(attempts))


@quick
@given(runs, st.lists(st.sampled_from(ACTIONS), max_size=40))
def test_every_history_ends_well_once_fate_relents(run: object, actions: list[str]) -> None:
    simulation = Simulation(run)  # type: ignore[arg-type]
    for action in actions:
        act(simulation, action)
    simulation.change_spec(suspend=False)
    simulation.finish(steps=STEPS)
    simulation.run = retry(simulation.run)
    simulation.finish(steps=STEPS)
    assert simulation.run.status.phase is Phase.SUCCEEDED
    assert attempts_are_monotone(simulation)
    assert len(simulation.run.status.iterations) <= simulation.run.spec.iterations
    settled = simulation.plan()
    assert settled.status == simulation.run.status
    assert (settled.create, settled.delete, settled.events) == ((), (), ())


@quick
@given(runs, st.sampled_from([code for code in CODES if code != 143]), st.integers(0, 4))
def test_a_stage_that_always_fails_ends_the_run(run: object, code: int, after: int) -> None:
    """Whichever of the first five Jobs it is: a short run whose rollout is fused has no more."""
    simulation = Simulation(run)  # type: ignore[arg-type]
    for _ in range(after):
        simulation.step(succeed)
    simulation.finish(lambda job: fail(job, code), steps=STEPS)
    status = simulation.run.status
    assert status.phase is Phase.FAILED
    stalled = next(condition for condition in status.conditions if condition.type is ConditionType.STALLED)
    assert (stalled.status, bool(stalled.message)) == ("True", True)


stage_states = st.builds(
    lambda phase, attempt, failures, with_artifact, with_job: {
        "phase": phase,
        "attempt": attempt,
        "failures": failures,
        "artifact": an_artifact() if with_artifact else None,
        "job": "somewhere" if with_job else "",
    },
    st.sampled_from(StagePhase),
    st.integers(1, 4),
    st.integers(0, 5),
    st.booleans(),
    st.booleans(),
)


def _iteration(
    index: int, stages: dict[Stage, dict[str, object]], with_prompts: bool, with_policy: bool
) -> IterationStatus:
    return IterationStatus(
        index=index,
        stages=tuple(StageStatus(stage=stage, **fields) for stage, fields in stages.items()),
        prompts=an_artifact("prompts") if with_prompts else None,
        policy=an_artifact("policy") if with_policy else None,
    )


statuses = st.builds(
    lambda phase, fetch, export, iterations, generation: AlignmentRunStatus(
        phase=phase,
        fetch=StageStatus(stage=Stage.FETCH, **fetch) if fetch else None,
        export=StageStatus(stage=Stage.EXPORT, **export) if export else None,
        iterations=tuple({entry.index: entry for entry in iterations}.values()),
        observed_generation=generation,
    ),
    st.sampled_from(Phase),
    st.none() | stage_states,
    st.none() | stage_states,
    st.lists(
        st.builds(
            _iteration,
            st.integers(0, 5),
            st.dictionaries(st.sampled_from(ITERATION_STAGES), stage_states, max_size=5),
            st.booleans(),
            st.booleans(),
        ),
        max_size=4,
    ),
    st.none() | st.integers(1, 2),
)


def _job(step: Step, attempt: int, phase: JobPhase, code: int, result: StageResult | None) -> JobObservation:
    return JobObservation(
        name=job_name("r", step, attempt),
        stage=step.stage,
        iteration=step.iteration,
        attempt=attempt,
        creation_time=T0,
        phase=phase,
        results=(result,),
        exit_code=None if phase is JobPhase.ACTIVE else code,
        reason=DISRUPTED if code == 143 else "",
    )


jobs = st.builds(
    _job,
    st.builds(
        lambda stage, iteration: Step(stage, iteration if stage in ITERATION_STAGES else None),
        st.sampled_from(Stage),
        st.integers(0, 3),
    ),
    st.integers(1, 5),
    st.sampled_from(JobPhase),
    st.sampled_from(CODES),
    st.sampled_from([None, a_result()]),
)


@quick
@given(runs, statuses, st.lists(jobs, max_size=6), st.booleans())
def test_no_state_is_beyond_the_planner(
    run: object, status: AlignmentRunStatus, observed: list[JobObservation], suspended: bool
) -> None:
    """Also from states that no run can get into: edited by hand, restored from a backup, written by another version."""
    start = run.model_copy(update={"status": status})  # type: ignore[attr-defined]
    simulation = Simulation(start, jobs={job.name: job for job in observed}, now=T0 + minutes(1))
    if suspended:
        simulation.change_spec(suspend=True)
        simulation.finish(steps=STEPS)
        simulation.change_spec(suspend=False)
    simulation.finish(steps=STEPS)
    for _ in range(len(Stage) + len(observed)):  # each stage and each Job that was there may have failed for good
        simulation.run = retry(simulation.run)
        simulation.finish(steps=STEPS)
    ended = simulation.run.status
    assert attempts_are_monotone(simulation)
    if ended.phase is not Phase.SUCCEEDED:
        stalled = next(condition for condition in ended.conditions if condition.type is ConditionType.STALLED)
        assert (ended.phase, stalled.reason) == (Phase.FAILED, reasons.MISSING_ARTIFACT)


@quick
@given(runs, st.lists(st.sampled_from(ACTIONS), max_size=15))
def test_planning_twice_changes_nothing(run: object, actions: list[str]) -> None:
    simulation = Simulation(run)  # type: ignore[arg-type]
    for action in actions:
        act(simulation, action)
    simulation.plan()
    before = replace(simulation, jobs=dict(simulation.jobs))
    again = simulation.plan()
    assert not again.create
    assert (again.delete, again.events) == ((), ())
    assert again.status == before.run.status
