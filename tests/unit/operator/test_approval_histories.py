"""Gates of `policy.approval` over histories of decisions, changes and failures: property tests."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign_contract.stages import Stage
from dynalign_operator.api.approvals import (
    AwaitedApproval,
    Decision,
    Gate,
)
from dynalign_operator.api.status import Phase
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.observed import Step
from dynalign_operator.planning.planner import retry
from support.approvals import BOTH, annotate, decide, with_gates
from support.builders import T0, an_artifact
from support.simulation import Simulation, fail, succeed

ACTIONS = (
    *("succeed", "succeed", "succeed", "exit 1", "lose", "write lost", "retry"),
    *("approve", "approve", "early", "stale", "wrong gate", "reject", "remove", "garbage"),
    *("suspend", "resume", "ungate", "gate", "raise"),
)


def act(simulation: Simulation, action: str, old: list[str]) -> None:
    """One thing that a person, the cluster or fate does."""
    annotate_as(simulation, action, old)
    change(simulation, action)
    fate = (lambda job: fail(job, 1)) if action == "exit 1" else succeed
    before = simulation.run
    created = simulation.step(fate, status_is_lost=action == "write lost").create
    for bundle in created:
        assert is_allowed(before, bundle.step), f"{bundle.step} started without an approval"


def annotate_as(simulation: Simulation, action: str, old: list[str]) -> None:
    awaited = simulation.run.status.awaited_approval
    digest = an_artifact().digest
    early = AwaitedApproval(gate=Gate.BEFORE_TRAIN, iteration=1, artifact=digest, since=T0)
    match action:
        case "approve" | "reject" if awaited is not None:
            decision = Decision.APPROVED if action == "approve" else Decision.REJECTED
            old.append(decide(simulation, awaited, decision, reason=str(len(old))))
        case "early":
            decide(simulation, early)
        case "stale" if old:
            annotate(simulation, old[0])
        case "wrong gate" if awaited is not None:
            other = Gate.BEFORE_EXPORT if awaited.gate is Gate.BEFORE_TRAIN else Gate.BEFORE_TRAIN
            decide(simulation, awaited.model_copy(update={"gate": other}))
        case "remove":
            metadata = simulation.run.metadata.model_copy(update={"annotations": {}})
            simulation.run = simulation.run.model_copy(update={"metadata": metadata})
        case "garbage":
            annotate(simulation, '{"by":')


def change(simulation: Simulation, action: str) -> None:
    match action:
        case "suspend" | "resume":
            simulation.change_spec(suspend=action == "suspend")
        case "gate" | "ungate":
            gates = tuple(Gate) if action == "gate" else ()
            simulation.change_spec(policy=simulation.run.spec.policy.model_copy(update={"approval": gates}))
        case "raise":
            simulation.change_spec(iterations=min(4, simulation.run.spec.iterations + 1))
        case "retry":
            simulation.run = retry(simulation.run)
        case "lose" if simulation.jobs:
            simulation.lose(sorted(simulation.jobs)[-1])


def is_allowed(run: AlignmentRun, step: Step) -> bool:
    """Whether the stored status has an approval for a stage that has a gate."""
    gate = {Stage.TRAIN: Gate.BEFORE_TRAIN, Stage.EXPORT: Gate.BEFORE_EXPORT}.get(step.stage)
    if gate is None or gate not in run.spec.policy.approval:
        return True
    iteration = step.iteration if step.iteration is not None else max(i.index for i in run.status.iterations)
    return any(
        (entry.gate, entry.iteration, entry.decision) == (gate, iteration, Decision.APPROVED)
        for entry in run.status.approvals
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), max_size=60))
def test_no_gated_stage_starts_unapproved_and_every_history_ends_well(actions: list[str]) -> None:
    simulation = with_gates(*BOTH, deadline="1000d")
    old: list[str] = []
    for action in actions:
        act(simulation, action, old)
    simulation.change_spec(suspend=False)
    for _ in range(60):
        act(simulation, "approve" if simulation.run.status.awaited_approval else "retry", old)
        if simulation.run.status.phase is Phase.SUCCEEDED:
            break
    status = simulation.run.status
    assert status.phase is Phase.SUCCEEDED
    assert status.awaited_approval is None
    places = [(entry.gate, entry.iteration) for entry in status.approvals]
    assert len(places) == len(set(places))
    settled = simulation.plan()
    assert (settled.status.evolve(report=status.report, conditions=status.conditions), settled.create) == (status, ())
