"""Gates of `policy.approval`: where a run waits, which decisions count, and what becomes of the clocks."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.stages import Stage
from dynalign_operator.api.approvals import (
    APPROVAL_ANNOTATION,
    ApprovalTextError,
    AwaitedApproval,
    Decision,
    Gate,
    build_request,
    parse_request,
)
from dynalign_operator.api.status import ConditionType, Phase
from dynalign_operator.cli.drive import exit_code_of, is_over
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning import reasons
from dynalign_operator.planning.approvals import KEPT_APPROVALS
from dynalign_operator.planning.observed import Observed, Step
from dynalign_operator.planning.planner import plan, retry
from dynalign_operator.planning.rehearsal import rehearse
from dynalign_operator.planning.stage_status import stage_status
from support.approvals import BOTH, annotate, decide, waiting, with_gates
from support.builders import T0, a_run, an_artifact
from support.planning import condition
from support.simulation import SETTINGS, Simulation, fail, succeed


def trainings(simulation: Simulation) -> list[int | None]:
    return [bundle.step.iteration for bundle in simulation.created if bundle.step.stage is Stage.TRAIN]


def test_a_run_waits_before_each_training_and_before_the_export() -> None:
    simulation = with_gates(*BOTH)
    gates = []
    for _ in range(3):
        awaited = waiting(simulation)
        gates.append((awaited.gate, awaited.iteration))
        assert not simulation._alive(), "no Job holds a GPU while a person decides"
        decide(simulation, awaited)
        simulation.step(succeed)
    simulation.finish()
    assert gates == [(Gate.BEFORE_TRAIN, 0), (Gate.BEFORE_TRAIN, 1), (Gate.BEFORE_EXPORT, 1)]
    assert simulation.run.status.phase is Phase.SUCCEEDED
    assert [(a.gate, a.iteration, a.by, a.decision) for a in simulation.run.status.approvals] == [
        (gate, iteration, "alice", Decision.APPROVED) for gate, iteration in gates
    ]


def test_a_waiting_run_says_so_and_is_not_stalled() -> None:
    simulation = with_gates("BeforeTrain")
    waiting(simulation)
    status = simulation.run.status
    assert (status.phase, status.progress) == (Phase.RUNNING, "1/2 train awaits approval")
    assert status.estimated_completion_time is None
    approved, stalled = condition(status, ConditionType.APPROVED), condition(status, ConditionType.STALLED)
    assert (approved.status, approved.reason) == ("False", reasons.AWAITING_APPROVAL)
    assert "dynalign approve" in approved.message
    assert stalled.status == "False"
    progressing = condition(status, ConditionType.PROGRESSING)
    assert (progressing.status, progressing.reason) == ("False", reasons.AWAITING_APPROVAL)
    assert [event.reason for event in simulation.events].count(reasons.AWAITING_APPROVAL) == 1
    assert (is_over(status), exit_code_of(status)) == (True, 20)


def test_a_run_without_gates_has_nothing_of_it_in_its_status() -> None:
    status = Simulation(a_run().build()).finish().run.status
    assert ConditionType.APPROVED not in {entry.type for entry in status.conditions}
    assert not {"approvals", "awaitedApproval"} & json.loads(status.to_json()).keys()
    spec = json.loads(a_run().build().spec.model_dump_json(by_alias=True))
    assert "approval" not in spec["policy"]


def test_a_decision_is_stored_before_the_job_is_created() -> None:
    simulation = with_gates("BeforeTrain")
    decide(simulation, waiting(simulation))
    stored = simulation.plan()
    assert stored.create == ()
    assert stored.status.approvals[0].time == simulation.now
    assert stored.wake_at == simulation.now
    assert [bundle.step for bundle in simulation.plan().create] == [Step(Stage.TRAIN, 0)]


def test_a_rejection_ends_the_run_until_it_is_tried_again_and_approved() -> None:
    simulation = with_gates("BeforeTrain")
    awaited = waiting(simulation)
    refusal = decide(simulation, awaited, Decision.REJECTED, "the answers flatter")
    simulation.finish()
    status = simulation.run.status
    assert status.phase is Phase.FAILED
    assert exit_code_of(status) == 12
    for kind in (ConditionType.STALLED, ConditionType.APPROVED):
        assert condition(status, kind).reason == reasons.REJECTED
        assert "the answers flatter" in condition(status, kind).message
    assert trainings(simulation) == []

    simulation.run = retry(simulation.run)
    again = waiting(simulation)
    assert simulation.run.metadata.annotations[APPROVAL_ANNOTATION] == refusal, "it counts once"
    decide(simulation, again)
    simulation.step(succeed)
    simulation.step(succeed)
    assert trainings(simulation) == [0]
    assert [entry.decision for entry in simulation.run.status.approvals] == [Decision.APPROVED]


def changed(**fields: Any) -> Any:
    return lambda awaited: build_request(awaited.model_copy(update=fields), "alice", Decision.APPROVED).to_text()


IGNORED: dict[str, Any] = {
    "another gate": changed(gate=Gate.BEFORE_EXPORT),
    "another iteration": changed(iteration=1),
    "another artifact": changed(artifact=an_artifact(digit="f").digest),
    "no JSON": lambda awaited: "yes",
    "no object": lambda awaited: "[]",
    "deep": lambda awaited: "[" * 100_000,
    "long": lambda awaited: '{"by":"' + "x" * 100_000 + '"}',
    "without a name": lambda awaited: changed()(awaited).replace('"by":"alice",', ""),
    "two names": lambda awaited: changed()(awaited).replace('{"by"', '{"by":"bob","by"'),
    "two names, one escaped": lambda awaited: changed()(awaited)[:-1] + ',"b\\u0079":"bob"}',
    "a name that prints as another": lambda awaited: changed()(awaited).replace("alice", "al\u202eice"),
    "an unknown field": lambda awaited: changed()(awaited)[:-1] + ',"all":true}',
    "an unknown decision": lambda awaited: changed()(awaited).replace("Approved", "approved"),
}


@pytest.mark.parametrize("case", IGNORED)
def test_what_is_no_decision_about_this_changes_nothing_and_is_said(case: str) -> None:
    simulation = with_gates("BeforeTrain")
    awaited = waiting(simulation)
    annotate(simulation, IGNORED[case](awaited))
    simulation.plan()
    status = simulation.run.status
    assert (status.awaited_approval, status.approvals) == (awaited, ())
    assert "The annotation dynalign.io/approval" in condition(status, ConditionType.APPROVED).message
    annotate(simulation, changed()(awaited))
    simulation.plan()
    assert simulation.run.status.approvals, "the same with the right text"


def test_an_approval_of_one_iteration_never_approves_the_next() -> None:
    simulation = with_gates("BeforeTrain")
    decide(simulation, waiting(simulation))
    simulation.step(succeed)
    simulation.step(succeed)
    assert waiting(simulation).iteration == 1
    assert trainings(simulation) == [0]


def test_an_approval_does_not_outlive_what_was_approved() -> None:
    """The judgements are made anew after the approval: somebody has to look at them again."""
    simulation = with_gates("BeforeTrain")
    awaited = waiting(simulation)
    decide(simulation, awaited)
    simulation.plan()
    judged = stage_status(simulation.run.status, Step(Stage.JUDGE, 0))
    iteration = simulation.run.status.iterations[0]
    stages = tuple(
        s if s.stage is not Stage.JUDGE else judged.evolve(artifact=an_artifact(digit="b")) for s in iteration.stages
    )
    simulation.run = simulation.run.with_status(
        simulation.run.status.evolve(iterations=(iteration.evolve(stages=stages),))
    )
    assert simulation.plan().create == ()
    assert simulation.run.status.awaited_approval != awaited
    assert simulation.run.status.awaited_approval is not None


def test_a_repeated_attempt_needs_no_second_approval() -> None:
    simulation = with_gates("BeforeTrain")
    decide(simulation, waiting(simulation))
    simulation.plan()
    simulation.plan()
    simulation.step(lambda job: fail(job, 1))
    simulation.step(succeed)
    simulation.step(succeed)
    assert [b.attempt for b in simulation.created if b.step == Step(Stage.TRAIN, 0)] == [1, 2]


def test_a_removed_annotation_withdraws_nothing_that_was_acted_on() -> None:
    simulation = with_gates("BeforeTrain")
    decide(simulation, waiting(simulation))
    simulation.plan()
    metadata = simulation.run.metadata.model_copy(update={"annotations": {}})
    simulation.run = simulation.run.model_copy(update={"metadata": metadata})
    simulation.plan()
    assert trainings(simulation) == [0]


def test_a_gate_that_is_removed_lets_the_run_go_on() -> None:
    simulation = with_gates("BeforeTrain")
    waiting(simulation)
    policy = simulation.run.spec.policy.model_copy(update={"approval": ()})
    simulation.change_spec(policy=policy)
    simulation.finish()
    status = simulation.run.status
    assert (status.phase, status.awaited_approval) == (Phase.SUCCEEDED, None)
    assert condition(status, ConditionType.APPROVED).reason == reasons.NO_APPROVAL_AWAITED


def test_a_gate_that_is_added_stops_nothing_that_runs() -> None:
    simulation = with_gates().until(Stage.TRAIN, 0)
    policy = simulation.run.spec.policy.model_copy(update={"approval": (Gate.BEFORE_TRAIN,)})
    simulation.change_spec(policy=policy)
    assert simulation.plan().delete == ()
    assert waiting(simulation).iteration == 1


def test_a_suspended_run_keeps_waiting_when_it_goes_on() -> None:
    simulation = with_gates("BeforeTrain")
    awaited = waiting(simulation)
    simulation.change_spec(suspend=True)
    simulation.plan()
    assert simulation.run.status.phase is Phase.SUSPENDED
    assert exit_code_of(simulation.run.status) == 0
    decide(simulation, awaited)
    simulation.plan()
    assert simulation.run.status.approvals == (), "nothing is decided while it is suspended"
    simulation.change_spec(suspend=False)
    simulation.plan()
    simulation.plan()
    assert trainings(simulation) == [0]


@pytest.mark.parametrize("ends", ["by an approval", "by a changed spec"])
def test_the_wait_counts_against_no_deadline(ends: str) -> None:
    simulation = with_gates("BeforeTrain", deadline="2h")
    awaited = waiting(simulation)
    worked = awaited.since - T0
    simulation.now += timedelta(days=9)
    assert simulation.plan().wake_at is None
    assert exit_code_of(simulation.run.status) == 20
    if ends == "by an approval":
        decide(simulation, awaited)
    else:
        policy = simulation.run.spec.policy.model_copy(update={"approval": ()})
        simulation.change_spec(policy=policy)
    for _ in range(3):
        simulation.plan()
    assert trainings(simulation) == [0]
    start = simulation.run.status.start_time
    assert start is not None
    assert timedelta(0) <= (simulation.now - start) - worked <= timedelta(minutes=2), "work before the wait counts"
    simulation.now += timedelta(hours=3)
    simulation.plan()
    assert simulation.run.status.phase is Phase.FAILED, "the deadline still holds"


@pytest.mark.parametrize("verified", [True, False])
def test_status_says_whether_the_name_can_be_believed(verified: bool) -> None:
    simulation = with_gates("BeforeTrain")
    decide(simulation, waiting(simulation))
    given_settings = replace(SETTINGS, are_approvals_verified=verified)
    status = plan(Observed(simulation.run, tuple(simulation.jobs.values())), simulation.now, given_settings).status
    assert status.approvals[0].verified is verified
    assert ("(unverified name)" in condition(status, ConditionType.APPROVED).message) is not verified


def test_the_status_keeps_the_latest_decisions() -> None:
    simulation = Simulation(a_run().with_iterations(25).with_policy(approval=["BeforeTrain"], deadline="900d").build())
    for _ in range(25):
        decide(simulation, waiting(simulation))
        simulation.step(succeed)
    simulation.finish()
    kept = [entry.iteration for entry in simulation.run.status.approvals]
    assert kept == list(range(25 - KEPT_APPROVALS, 25))


def test_render_shows_the_whole_run_all_the_same() -> None:
    bundles = [list(rehearse(run, {}, T0, BuildSettings())) for run in (a_run().build(), with_gates(*BOTH).run)]
    without, with_both = ([bundle.name for bundle in found] for found in bundles)
    assert without == with_both


def test_the_text_of_a_decision_begins_with_the_name() -> None:
    """The admission policy compares the beginning."""
    awaited = AwaitedApproval(gate=Gate.BEFORE_TRAIN, iteration=0, artifact="sha256:0", since=T0)
    text = build_request(awaited, "https://issuer/#älice:b", Decision.REJECTED, 'no "good"').to_text()
    assert text.startswith('{"by":"https://issuer/#älice:b",')
    assert parse_request(text).reason == 'no "good"'


@given(st.text(max_size=200))
def test_any_text_is_a_decision_or_a_sentence(text: str) -> None:
    with pytest.raises(ApprovalTextError) as found:
        parse_request(text)
    assert str(found.value)
