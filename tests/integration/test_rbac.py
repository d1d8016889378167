"""The rights that the chart grants are the rights that the operator uses: each of them, and none that it lacks."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.labels import read_job_labels
from dynalign_operator.planning.rehearsal import rehearse
from dynalign_operator.service.settings import read_settings
from lab.api_server import PATIENCE, ApiServer, start_api_server
from lab.audit import Right
from support.chart import ROOT, Objects, of_kind, only, render
from support.player import Player, is_completed, run_object, scenario, start_operator, well

pytestmark = pytest.mark.cluster

TEAM = "team"
"""Namespace of the run."""
OBJECTIVE = ROOT / "trainer" / "dynalign_contract" / "objectives" / "collective-agency.yaml"
NO_STAGE = "127.64.0.1"
"""Where no stage answers: a reader that asks the pod itself gets no connection."""
RUN = run_object(
    namespace=TEAM,
    model={"uri": "bundled://smollm2-135m-instruct"},
    iterations=1,
    objective={"configMapRef": {"name": "objective"}},
    training={"nodes": 2},
)
FOREIGN: dict[str, dict[str, Any]] = {
    "PersistentVolumeClaim": {
        "apiVersion": "v1",
        "metadata": {"name": "r"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    },
    "ConfigMap": {"apiVersion": "v1", "metadata": {"name": "r-fetch-a1"}},
    "Job": {
        "apiVersion": "batch/v1",
        "metadata": {"name": "r-fetch-a1"},
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}},
        },
    },
    "Service": {"apiVersion": "v1", "metadata": {"name": "train-r"}, "spec": {"ports": [{"port": 80}]}},
}
"""Objects of somebody else, whose names the run needs: those of the first stage, and the Service of the training. The
first stage's NetworkPolicy is one more, whose name the operator's settings decide."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with start_api_server(tmp_path_factory.mktemp("rbac") / "s", audit=True) as started:
        objective = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "objective", "namespace": TEAM},
            "data": {"objective.yaml": OBJECTIVE.read_text()},
        }
        assert started.kubectl("create", "namespace", TEAM).returncode == 0
        assert started.apply(objective).returncode == 0
        yield started


@dataclass(frozen=True)
class Installation:
    """A release, as far as the API server needs it, and what its Deployment tells the operator."""

    kubeconfig: Path
    rights: set[Right]
    settings: dict[str, str]


def install(server: ApiServer, namespace: str, values: dict[str, Any]) -> Installation:
    objects = render(values, namespace=namespace)
    assert server.kubectl("create", "namespace", namespace).returncode == 0
    applied = server.apply(
        *of_kind(objects, "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    )
    assert applied.returncode == 0, applied.stderr
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    settings = {variable["name"]: variable["value"] for variable in container["env"]}
    ports = {"DYNALIGN_METRICS_PORT": "0", "DYNALIGN_PROBE_PORT": "0"}
    account = only(objects, "ServiceAccount")["metadata"]["name"]
    return Installation(server.kubeconfig_of(account, namespace), granted(objects), settings | ports)


def foreign_objects(installed: Installation) -> dict[str, dict[str, Any]]:
    """By kind."""
    run = AlignmentRun.model_validate(RUN)
    settings = read_settings(installed.settings).build
    objectives = {"objective": {"objective.yaml": OBJECTIVE.read_text()}}
    first = next(iter(rehearse(run, objectives, datetime.now(UTC), settings)))
    assert first.network_policy is not None
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": first.network_policy["metadata"]["name"]},
        "spec": {"podSelector": {}},
    }
    return {**FOREIGN, "NetworkPolicy": policy}


def granted(objects: Objects) -> set[Right]:
    """The rights that are bound to the operator: those of people who approve are not."""
    bound = {binding["roleRef"]["name"] for binding in of_kind(objects, "ClusterRoleBinding", "RoleBinding")}
    return {
        Right(group, resource, verb)
        for role in of_kind(objects, "ClusterRole", "Role")
        if role["metadata"]["name"] in bound
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def stalled(status: dict[str, Any]) -> dict[str, Any]:
    return next((c for c in status.get("conditions", ()) if c["type"] == "Stalled"), {})


def is_fetch(pod: dict[str, Any]) -> bool:
    labels = read_job_labels(pod["metadata"]["labels"])
    return labels is not None and labels.stage is Stage.FETCH


async def tell(server: ApiServer, player: Player, names: dict[str, str], has_been_read: Callable[[], bool]) -> None:
    """Everything that a run can meet. `names` are those of the foreign objects, by kind."""
    await player.create(RUN)
    for kind in ("PersistentVolumeClaim", "NetworkPolicy", "ConfigMap", "Job"):  # as the operator comes upon them
        await give_way(server, player, kind, names[kind])

    # The fetch stage runs until its progress has been asked for.
    player.fate = lambda pod: NO_STAGE if is_fetch(pod) else well(pod)
    await player.until(lambda s: s.get("stage") == "fetch" and s["phase"] == "Running", "the first Job")
    end = time.monotonic() + PATIENCE
    while not has_been_read():
        await player.play()
        assert time.monotonic() < end, "nobody has asked for the stage's progress"
        await asyncio.sleep(0.1)  # between two looks at it

    change(server, suspend=True)
    await player.until(lambda s: s.get("phase") == "Suspended", "the suspension")
    player.fate = well
    change(server, suspend=False)
    await give_way(server, player, "Service", names["Service"])
    await player.until(is_completed, "completion")
    change(server, iterations=2)
    await player.until(lambda s: is_completed(s) and len(s["iterations"]) == 2, "the second iteration")
    assert "RunSucceeded" in server.kubectl("get", "events", "--namespace", TEAM).stdout


async def give_way(server: ApiServer, player: Player, kind: str, name: str) -> None:
    """Wait until the run says that the name of this kind's object is taken, and remove the object."""
    await player.until(lambda s: f"{kind} {name} already" in stalled(s).get("message", ""), f"a taken {kind}")
    removed = server.kubectl("delete", "--namespace", TEAM, "--wait=false", kind, name)
    assert removed.returncode == 0, removed.stderr


def change(server: ApiServer, **spec: object) -> None:
    patched = server.kubectl("patch", "ar", "r", "-n", TEAM, "--type=merge", "-p", yaml.safe_dump({"spec": spec}))
    assert patched.returncode == 0, patched.stderr


@pytest.mark.parametrize(
    ("release", "values"),
    [
        ("everywhere", {"progress": "PodIP"}),
        ("one-namespace", {"progress": "ApiProxy", "namespaces": [TEAM]}),
    ],
)
def test_what_is_granted_is_used_and_nothing_is_denied(server: ApiServer, release: str, values: dict[str, Any]) -> None:
    installed = install(server, release, values)
    proxy = Right("", "pods/proxy", "get")
    goes_by_proxy = values["progress"] == "ApiProxy"

    def used() -> set[Right]:
        return {request.right for request in server.requests_of("dynalign", release)}

    foreign = foreign_objects(installed)
    names = {kind: thing["metadata"]["name"] for kind, thing in foreign.items()}
    for kind, thing in foreign.items():
        made = server.kubectl("create", "-n", TEAM, "-f", "-", text=yaml.safe_dump({**thing, "kind": kind}))
        assert made.returncode == 0, made.stderr
    with start_operator(server, installed.kubeconfig, **installed.settings):
        try:
            story = partial(tell, server, names=names, has_been_read=lambda: not goes_by_proxy or proxy in used())
            scenario(server, story, namespace=TEAM)
        finally:
            requests = server.requests_of("dynalign", release)
            denied = {str(r.right): r.uri for r in requests if r.status == HTTPStatus.FORBIDDEN}
            assert not denied, f"files/rbac.yaml lacks what the operator asks for: {denied}"
    print(f"{release}: " + "; ".join(map(str, sorted(used()))))  # noqa: T201 - the list is what the reader wants
    unused = installed.rights - used()
    assert not unused, f"unused grants, take them out of files/rbac.yaml: {', '.join(map(str, sorted(unused)))}"
    assert used() <= installed.rights
    assert (proxy in installed.rights) is goes_by_proxy
