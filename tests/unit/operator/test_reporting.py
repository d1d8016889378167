"""The report runs beside the run: when it is due, what a failure of it means, and that nothing else depends on it."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign_contract.config import ReportParams, StageConfig
from dynalign_contract.layout import REPORT_FILE
from dynalign_contract.stages import SIDE_STAGES, Stage
from dynalign_operator.api.status import AlignmentRunStatus, ConditionType, Phase, ReportStatus, StagePhase
from dynalign_operator.api.v1alpha1 import ReportSpec, ReportTime
from dynalign_operator.clusters.kubernetes.projection import is_ended_run
from dynalign_operator.manifests.job import SIDE_LIMIT
from dynalign_operator.planning import reasons
from dynalign_operator.planning.observed import ClaimObservation, JobObservation, JobPhase, Observed
from dynalign_operator.planning.planner import plan, retry
from dynalign_operator.planning.reporting import MAX_DISRUPTIONS
from support.builders import a_failure, a_run
from support.planning import condition, config_of
from support.simulation import SETTINGS, Fate, Simulation, disrupt, fail, succeed


def report_of(simulation: Simulation) -> ReportStatus:
    assert simulation.run.status.report is not None
    return simulation.run.status.report


def covered(simulation: Simulation) -> list[tuple[int | None, str]]:
    """Iteration and phase of the run that each report was made for."""
    texts = [bundle.config_map["data"]["stage.json"] for bundle in simulation.reports]
    params = [StageConfig.model_validate_json(text).params for text in texts]
    return [(one.iteration, one.facts.phase) for one in params if isinstance(one, ReportParams)]


def without_report(status: AlignmentRunStatus) -> AlignmentRunStatus:
    conditions = tuple(one for one in status.conditions if one.type is not ConditionType.REPORTED)
    return status.evolve(report=None, conditions=conditions)


def hang(job: JobObservation) -> JobObservation:
    return job


def never_start(job: JobObservation) -> JobObservation:
    return replace(job, start_time=None, reason="Unschedulable", message="0/3 nodes are available: no CPU.")


def test_a_report_is_due_after_each_iteration_and_at_the_end() -> None:
    done = Simulation(a_run().with_iterations(3).build()).finish()
    assert covered(done) == [(0, "Running"), (1, "Running"), (2, "Running"), (2, "Succeeded")]
    assert [bundle.attempt for bundle in done.reports] == [1, 2, 3, 4]
    report = report_of(done)
    assert (report.phase, report.path, report.iteration) == (StagePhase.SUCCEEDED, REPORT_FILE, 2)
    assert report.run_completion_time == done.run.status.completion_time
    reported = condition(done.run.status, ConditionType.REPORTED)
    assert (reported.status, reported.reason) == ("True", reasons.REPORTED)
    assert [job.name for job in done.jobs.values() if job.stage in SIDE_STAGES] == ["r-report-a4"], (
        "others would pile up"
    )


def test_the_run_s_own_job_is_created_first_and_neither_waits_for_the_other() -> None:
    simulation = Simulation(a_run().with_iterations(2).build(), report_fate=hang).until(Stage.PROMPTS, 1)
    alive = [job.name for job in simulation.jobs.values() if job.phase is JobPhase.ACTIVE]
    assert alive == ["r-i001-prompts-a1", "r-report-a1"]
    status = simulation.run.status
    assert (status.stage, status.progress) == (Stage.PROMPTS, "2/2 prompts")


@pytest.mark.parametrize(
    ("when", "reports"),
    [("EveryIteration", [0, 1, 1]), ("AtEnd", [1]), ("Never", [])],
)
def test_when(when: str, reports: list[int]) -> None:
    done = Simulation(a_run().with_iterations(2).with_spec(report={"when": when}).build()).finish()
    assert [iteration for iteration, _ in covered(done)] == reports


def test_a_volume_for_one_pod_at_a_time_is_reported_at_the_end_only() -> None:
    """A second pod on another node would keep the run's next pod from mounting it."""
    done = Simulation(a_run().with_spec(storage={"accessMode": "ReadWriteOnce"}).build()).finish()
    assert covered(done) == [(1, "Succeeded")]


@pytest.mark.parametrize(("mode", "beside"), [("ReadWriteMany", True), ("ReadWriteOnce", False)])
def test_the_user_s_own_claim_decides_by_what_it_offers(mode: str, beside: bool) -> None:
    simulation = Simulation(a_run().with_spec(storage={"existingClaim": "mine"}).build()).until(Stage.EVALUATE, 0)
    jobs = tuple(succeed(job) if job.stage is Stage.EVALUATE else job for job in simulation.jobs.values())
    claims = {"mine": ClaimObservation(frozenset({mode}))}
    decided = plan(Observed(simulation.run, jobs, claims=claims), simulation.now, SETTINGS)
    assert [bundle.name for bundle in decided.create] == [
        "r-i001-prompts-a1",
        *(["r-report-a1"] if beside else []),
    ]


def test_the_report_reads_facts_that_the_run_has_then() -> None:
    done = Simulation(a_run().with_iterations(1).build()).finish()
    config = config_of(done, "report")
    assert isinstance(config.params, ReportParams)
    facts = config.params.facts
    assert (facts.name, facts.phase, facts.iterations) == ("r", "Succeeded", 1)
    assert "uri: bundled://tiny" in facts.configuration
    assert {one.type for one in facts.conditions} >= {"Ready", "Stalled", "Completed"}
    assert {one.stage for one in facts.stages} == set(Stage) - SIDE_STAGES - {Stage.ROLLOUT}
    assert config.inputs == {}, "what cannot be read is no reason against a report"


def test_facts_of_the_longest_texts_fit_into_a_config_map() -> None:
    words = "é" * 4000
    run = (
        a_run().with_iterations(12).with_spec(model={"uri": "bundled://tiny", "chat": {"systemPrompt": words}}).build()
    )
    simulation = Simulation(run).finish(lambda job: succeed(job, **{f"reward_{i}": 0.123456789 for i in range(60)}))
    status = simulation.run.status
    long = tuple(one.model_copy(update={"message": "é" * 32_768}) for one in status.conditions)
    stages = tuple(
        entry.evolve(stages=tuple(stage.evolve(message="é" * 4096) for stage in entry.stages))
        for entry in status.iterations
    )
    again = simulation.run.with_status(status.evolve(conditions=long, iterations=stages, report=None))
    (bundle,) = plan(Observed(again), simulation.now, SETTINGS).create
    assert len(bundle.config_map["data"]["stage.json"].encode()) < 900_000


def test_a_failed_run_has_its_report_once() -> None:
    simulation = Simulation(a_run().build())
    simulation.finish(lambda job: fail(job, 11) if job.stage is Stage.JUDGE else succeed(job))
    assert simulation.run.status.phase is Phase.FAILED
    assert covered(simulation) == [(None, "Failed")]
    (facts,) = [p.facts for p in [config_of(simulation, "report").params] if isinstance(p, ReportParams)]
    stalled = next(one for one in facts.conditions if one.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "BadInput")
    simulation.run = retry(simulation.run)
    simulation.finish()
    assert covered(simulation)[1:] == [(0, "Running"), (1, "Running"), (1, "Succeeded")]


def test_a_run_that_failed_before_anything_was_fetched_has_nothing_to_report() -> None:
    simulation = Simulation(a_run().build()).finish(lambda job: fail(job, 11))
    assert (simulation.run.status.phase, simulation.reports) == (Phase.FAILED, [])
    assert simulation.run.status.report is None


@pytest.mark.parametrize(
    ("fate", "attempts", "words"),
    [
        (lambda job: fail(job, 1), 2, "ended with exit code 1"),
        (lambda job: fail(job, 10), 1, "ended with exit code 10"),
        (lambda job: replace(fail(job, 1), results=(a_failure(1, "plotly is missing"),)), 2, "plotly is missing"),
        (lambda job: replace(succeed(job), results=(None,)), 2, "without a result"),
        (disrupt, MAX_DISRUPTIONS + 1, "Job r-report-a6 ended"),
        (hang, 2, "spec.stages.report.resources"),
        (never_start, 2, "0/3 nodes are available: no CPU"),
    ],
)
def test_a_report_that_fails_is_given_up_and_the_run_goes_on(fate: Fate, attempts: int, words: str) -> None:
    simulation = Simulation(a_run().with_iterations(1).with_spec(report={"when": "AtEnd"}).build(), report_fate=fate)
    simulation.finish()
    assert [bundle.attempt for bundle in simulation.reports] == list(range(1, attempts + 1))
    status = simulation.run.status
    assert (status.phase, report_of(simulation).phase) == (Phase.SUCCEEDED, StagePhase.FAILED)
    reported = condition(status, ConditionType.REPORTED)
    assert (reported.status, reported.reason) == ("False", reasons.REPORT_FAILED)
    assert words in reported.message
    assert "dynalign report FOLDER" in reported.message
    assert condition(status, ConditionType.STALLED).status == "False"


@pytest.mark.parametrize("how", ["the specification changes", "dynalign run is given again"])
def test_the_failed_report_of_a_run_that_has_ended_is_made_once_its_cause_is_removed(how: str) -> None:
    """Such as a tracker that was down: the condition names it until it has been written."""
    down = a_failure(1, "spec.tracking.mlflow was not written; report.html is up to date")
    simulation = Simulation(
        a_run().with_iterations(1).with_spec(tracking={"mlflow": {"url": "http://mlflow:5000"}}).build(),
        report_fate=lambda job: replace(fail(job, 1), results=(down,)),
    ).finish()
    before = simulation.run.status
    reported = condition(before, ConditionType.REPORTED)
    assert (before.phase, reported.status) == (Phase.SUCCEEDED, "False")
    assert "spec.tracking.mlflow was not written" in reported.message
    assert "It is tried again when the run's specification changes, or `dynalign run FILE`" in reported.message
    assert simulation.plan().create == (), "not by itself"
    simulation.report_fate = succeed
    if how == "the specification changes":
        simulation.change_spec(report=ReportSpec(when=ReportTime.AT_END))
    else:
        simulation.run = retry(simulation.run)
    simulation.finish()
    after = simulation.run.status
    assert condition(after, ConditionType.REPORTED).status == "True"
    assert (after.phase, after.completion_time) == (Phase.SUCCEEDED, before.completion_time)
    assert covered(simulation)[-1] == (0, "Succeeded")
    assert retry(simulation.run) == simulation.run, "what has been written is not written again"


def test_after_a_failure_the_next_iteration_is_reported_again() -> None:
    simulation = Simulation(a_run().with_iterations(2).build(), report_fate=lambda job: fail(job, 1))
    simulation.until(Stage.JUDGE, 1)
    assert (
        "It is tried again after the next iteration."
        in condition(simulation.run.status, ConditionType.REPORTED).message
    )
    simulation.report_fate = succeed
    simulation.finish()
    assert report_of(simulation).failures == 0
    assert condition(simulation.run.status, ConditionType.REPORTED).status == "True"


def test_a_job_that_vanishes_is_created_again_under_its_name_until_its_time_is_up() -> None:
    simulation = Simulation(a_run().with_iterations(2).build(), report_fate=hang).until(Stage.PROMPTS, 1)
    simulation.lose("r-report-a1")
    assert [bundle.name for bundle in simulation.plan().create] == ["r-report-a1"]
    late = simulation.observed()
    gone = replace(late, jobs=tuple(job for job in late.jobs if job.stage not in SIDE_STAGES))
    decided = plan(gone, simulation.now + SIDE_LIMIT, SETTINGS)
    assert decided.status.report is not None
    assert (decided.status.report.failures, decided.status.report.attempt) == (1, 2)
    assert "quota" in decided.status.report.message


def test_the_end_of_the_run_does_not_wait_for_the_report_of_an_iteration() -> None:
    simulation = Simulation(a_run().with_iterations(1).build(), report_fate=hang).until(Stage.EXPORT)
    (first,) = [job for job in simulation.jobs.values() if job.stage in SIDE_STAGES]
    simulation.step(succeed)
    simulation.report_fate = succeed
    decided = simulation.plan()
    assert first.name in decided.delete
    simulation.finish()
    assert covered(simulation) == [(0, "Running"), (0, "Succeeded")]


def test_suspend_stops_the_report_and_resume_makes_it() -> None:
    simulation = Simulation(a_run().with_iterations(2).build(), report_fate=hang).until(Stage.PROMPTS, 1)
    simulation.change_spec(suspend=True)
    assert set(simulation.plan().delete) == {"r-i001-prompts-a1", "r-report-a1"}
    simulation.finish()
    assert not [job for job in simulation.jobs.values() if job.phase is JobPhase.ACTIVE]
    simulation.change_spec(suspend=False)
    simulation.report_fate = succeed
    simulation.finish()
    assert [bundle.attempt for bundle in simulation.reports] == [1, 2, 3, 4]
    assert report_of(simulation).phase is StagePhase.SUCCEEDED


def test_a_failing_run_spares_the_report_that_runs() -> None:
    simulation = Simulation(a_run().with_iterations(3).build(), report_fate=hang).until(Stage.PROMPTS, 1)
    decided = simulation.step(lambda job: fail(job, 10))
    decided = simulation.plan()
    assert decided.status.phase is Phase.FAILED
    assert "r-i001-prompts-a1" not in decided.delete
    simulation.report_fate = succeed
    simulation.finish()
    assert covered(simulation)[-1] == (0, "Failed")


def test_a_queue_holds_back_the_report_without_limit() -> None:
    simulation = Simulation(
        a_run().with_iterations(2).build(), report_fate=lambda job: replace(job, start_time=None, suspended=True)
    ).until(Stage.PROMPTS, 1)
    for _ in range(30):
        simulation.step(hang)
    assert report_of(simulation).failures == 0


def test_kubernetes_ends_the_job_should_the_planner_not() -> None:
    done = Simulation(a_run().with_iterations(1).build()).finish()
    assert done.reports[0].job["spec"]["activeDeadlineSeconds"] > SIDE_LIMIT.total_seconds()
    assert all("activeDeadlineSeconds" not in bundle.job["spec"] for bundle in done.created)


@pytest.mark.parametrize(
    ("phase", "settled"), [("Running", False), ("Pending", False), ("Succeeded", True), ("Failed", True)]
)
def test_a_run_that_has_ended_is_looked_at_until_its_report_is_seen_to(phase: str, settled: bool) -> None:
    status = {"phase": "Succeeded", "observedGeneration": 1}
    metadata = {"generation": 1}
    assert is_ended_run({"metadata": metadata, "status": {**status, "report": {"phase": phase}}}) is settled
    assert is_ended_run({"metadata": metadata, "status": status}), "an older operator's run"


FATES: dict[str, Fate] = {
    "succeed": succeed,
    "fail": lambda job: fail(job, 1),
    "fail for good": lambda job: fail(job, 11),
    "no result": lambda job: replace(succeed(job), results=(None,)),
    "disrupt": disrupt,
    "hang": hang,
    "never start": never_start,
}


@settings(max_examples=60, deadline=timedelta(seconds=20))
@given(
    st.integers(1, 3),
    st.lists(st.sampled_from([*FATES, "vanish", "write lost"]), min_size=1, max_size=12),
    st.sampled_from([None, Stage.TRAIN, Stage.EXPORT]),
)
def test_whatever_becomes_of_reports_the_run_ends_the_same(
    iterations: int, fates: list[str], failing: Stage | None
) -> None:
    def fate(job: JobObservation) -> JobObservation:
        return fail(job, 12) if job.stage is failing else succeed(job)

    alone = Simulation(a_run().with_iterations(iterations).with_spec(report={"when": "Never"}).build()).finish(fate)
    simulation = Simulation(a_run().with_iterations(iterations).build())
    for name in fates:
        simulation.report_fate = FATES.get(name, hang)
        reports = [job.name for job in simulation.jobs.values() if job.stage in SIDE_STAGES]
        if name == "vanish" and reports:
            simulation.lose(reports[0])
        simulation.step(fate)
    simulation.report_fate = succeed
    simulation.finish(fate)
    assert simulation.steps_created() == alone.steps_created()
    assert without_report(simulation.run.status) == without_report(alone.run.status)
    ended = simulation.run.status.report
    assert ended is not None or failing is Stage.TRAIN
    assert ended is None or ended.phase in (StagePhase.SUCCEEDED, StagePhase.FAILED)
    settled = simulation.plan()
    assert (settled.status, settled.create, settled.delete) == (simulation.run.status, (), ())


report_states = st.builds(
    lambda phase, attempt, iteration, with_job, failures: ReportStatus(
        phase=phase,
        attempt=attempt,
        iteration=iteration,
        job=f"r-report-a{attempt}" if with_job else "",
        failures=failures,
        path="",
    ),
    st.sampled_from(StagePhase),
    st.integers(1, 4),
    st.none() | st.integers(0, 5),
    st.booleans(),
    st.integers(0, 3),
)


@settings(max_examples=60, deadline=timedelta(seconds=20))
@given(report_states, st.lists(st.tuples(st.integers(1, 5), st.sampled_from(JobPhase)), max_size=4), st.booleans())
def test_no_state_of_the_report_keeps_a_run_from_its_end(
    report: ReportStatus, observed: list[tuple[int, JobPhase]], lost: bool
) -> None:
    begun = Simulation(a_run().with_iterations(1).build()).until(Stage.JUDGE, 0)
    run = begun.run.with_status(begun.run.status.evolve(report=report))
    jobs = {
        f"r-report-a{attempt}": JobObservation(
            name=f"r-report-a{attempt}",
            stage=Stage.REPORT,
            iteration=None,
            attempt=attempt,
            creation_time=begun.now,
            phase=phase,
            results=(None,),
        )
        for attempt, phase in observed
    }
    simulation = Simulation(run, jobs={**begun.jobs, **jobs}, now=begun.now)
    simulation.step(succeed, status_is_lost=lost)
    simulation.finish()
    assert simulation.run.status.phase is Phase.SUCCEEDED
    assert report_of(simulation).phase is StagePhase.SUCCEEDED
    assert report_of(simulation).run_completion_time == simulation.run.status.completion_time
