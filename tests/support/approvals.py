"""Runs with gates, and decisions about them."""

from typing import TYPE_CHECKING, Any

from dynalign_operator.api.approvals import (
    APPROVAL_ANNOTATION,
    AwaitedApproval,
    Decision,
    build_request,
)
from support.builders import a_run
from support.chart import of_kind, render
from support.simulation import Simulation, succeed

if TYPE_CHECKING:
    from lab.api_server import ApiServer

TEAM = "team"
"""Namespace of the people below."""
EDITOR_RULES = [{"apiGroups": ["dynalign.io"], "resources": ["alignmentruns"], "verbs": ["*"]}]
"""What an editor has, the verb `approve` aside."""
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


def people(role: str) -> list[dict[str, Any]]:
    """alice may approve; bob may change runs, and has every verb but that."""
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    editor = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "editor"},
        "rules": [{**EDITOR_RULES[0], "verbs": verbs}],
    }
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": TEAM}}
        for name in ("alice", "bob")
    ]
    bindings = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{name}-{bound}", "namespace": TEAM},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": bound},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": TEAM}],
        }
        for name, bound in (("alice", role), ("bob", "editor"))
    ]
    return [editor, *accounts, *bindings]


def user(name: str) -> str:
    return f"system:serviceaccount:{TEAM}:{name}"


def install_approvals(server: "ApiServer") -> None:
    """The chart's role and admission policy, and people in the namespace `team`, which exists."""
    objects = render()
    policies = of_kind(objects, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    assert len(policies) == 2
    approver = next(role for role in of_kind(objects, "ClusterRole") if role["metadata"]["name"].endswith("-approver"))
    applied = server.apply(*policies, approver, *people(approver["metadata"]["name"]))
    assert applied.returncode == 0, applied.stderr
