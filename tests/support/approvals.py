"""Runs with gates, and decisions about them."""

from typing import Any

from dynalign_operator.api.approvals import (
    APPROVAL_ANNOTATION,
    AwaitedApproval,
    Decision,
    build_request,
)
from support.builders import a_run
from support.simulation import Simulation, succeed

BOTH = ["BeforeTrain", "BeforeExport"]


def with_gates(*gates: str, **policy: Any) -> Simulation:
    return Simulation(a_run().with_policy(approval=list(gates), **policy).build())


def waiting(simulation: Simulation) -> AwaitedApproval:
    """What the run waits with, after it has gone as far as it can."""
    for _ in range(60):
        decided = simulation.step(succeed)
        if simulation.run.status.awaited_approval is not None and not decided.create:
            return simulation.run.status.awaited_approval
    raise AssertionError("the run waits for nobody")


def annotate(simulation: Simulation, text: str) -> None:
    simulation.run = simulation.run.with_annotation(APPROVAL_ANNOTATION, text)


def decide(
    simulation: Simulation, awaited: AwaitedApproval, decision: Decision = Decision.APPROVED, reason: str = ""
) -> str:
    text = build_request(awaited, "alice", decision, reason).to_text()
    annotate(simulation, text)
    return text
