"""What no schema can know becomes a condition with a remedy, before anything is created or while a Job waits."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dynalign_operator.clusters.kubernetes.paths import PODS, collection_path
from lab.api_server import ApiServer, start_api_server
from support.player import Player, is_completed, run_object, scenario, start_operator

pytestmark = pytest.mark.cluster

MODEL = {"uri": "bundled://smollm2-135m-instruct"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with start_api_server(tmp_path_factory.mktemp("api-server") / "s") as started, start_operator(started):
        yield started


def a_claim(name: str, mode: str) -> dict[str, Any]:
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "none-such"}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


def stalls_with(reason: str) -> Any:
    return lambda status: condition(status, "Stalled").get("reason") == reason


def touch(server: ApiServer) -> None:
    """Make the operator look at the run now rather than within a minute."""
    assert server.kubectl("annotate", "--overwrite", "ar", "r", "looked-at=again").returncode == 0


def test_a_missing_claim_holds_the_run_until_it_is_there(server: ApiServer) -> None:
    async def story(player: Player) -> None:
        await player.create(run_object(model=MODEL, iterations=1, storage={"existingClaim": "mine"}))
        run = await player.until(stalls_with("MissingClaim"), "the stall")
        assert "the PersistentVolumeClaim mine, which does not exist" in condition(run["status"], "Stalled")["message"]
        assert await player.jobs() == []
        assert server.apply(a_claim("mine", "ReadWriteOnce")).returncode == 0
        touch(server)
        run = await player.until(is_completed, "completion")
        assert condition(run["status"], "Stalled")["status"] == "False"
        claims = json.loads(server.kubectl("get", "pvc", "-o", "json").stdout)["items"]
        assert [claim["metadata"]["name"] for claim in claims] == ["mine"]

    scenario(server, story)


def test_a_claim_of_one_node_is_refused_to_several_until_there_is_but_one(server: ApiServer) -> None:
    async def story(player: Player) -> None:
        assert server.apply(a_claim("once", "ReadWriteOncePod")).returncode == 0
        spec = {"generation": {"shards": 2}, "storage": {"existingClaim": "once"}}
        await player.create(run_object("r", "default", model=MODEL, iterations=1, **spec))
        run = await player.until(stalls_with("VolumeNotShared"), "the stall")
        message = condition(run["status"], "Stalled")["message"]
        assert "the PersistentVolumeClaim once offers ReadWriteOncePod, but spec.generation.shards is 2" in message
        assert await player.jobs() == []
        server.kubectl("patch", "ar", "r", "--type=merge", "-p", '{"spec":{"generation":{"shards":1}}}')
        await player.until(is_completed, "completion")

    scenario(server, story)


def test_an_objective_that_comes_late_is_waited_for(server: ApiServer) -> None:
    async def story(player: Player) -> None:
        await player.create(run_object(model=MODEL, iterations=1, objective={"configMapRef": {"name": "late"}}))
        run = await player.until(stalls_with("BadObjective"), "the stall")
        assert "the ConfigMap late, which does not exist" in condition(run["status"], "Stalled")["message"]
        server.kubectl("create", "configmap", "late", "--from-literal=other.yaml=x")
        touch(server)
        run = await player.until(
            lambda s: "the key objective.yaml" in condition(s, "Stalled").get("message", ""), "the next sentence"
        )
        assert condition(run["status"], "Stalled")["reason"] == "BadObjective"
        assert "other.yaml" not in json.dumps(run["status"]), "a status repeats nothing of a ConfigMap"
        assert await player.jobs() == []

    scenario(server, story)


def test_pods_that_a_quota_refuses_are_told_of_while_the_job_waits(server: ApiServer) -> None:
    """The Job is there, its pods are not, and nothing in its status says why."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    counted = {"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}}

    async def story(player: Player) -> None:
        assert server.kubectl("create", "namespace", "full").returncode == 0
        server.apply({**quota, "metadata": {"name": "none", "namespace": "full"}})
        server.kubectl(
            *("patch", "resourcequota", "none", "-n", "full", "--subresource=status", "--type=merge"),
            *("-p", json.dumps(counted)),
        )
        await player.create(run_object(namespace="full", model=MODEL, iterations=1))
        run = await player.until(
            lambda s: "takes no more pods" in condition(s, "Progressing").get("message", ""), "the explanation"
        )
        message = condition(run["status"], "Progressing")["message"]
        assert "`kubectl describe job r-fetch-a1 -n full` says which" in message
        described = server.kubectl("describe", "job", "r-fetch-a1", "-n", "full").stdout
        assert "exceeded quota: none" in described
        server.kubectl("delete", "resourcequota", "none", "-n", "full")
        await player.until(is_completed, "completion")

    scenario(server, story, namespace="full")


def test_what_the_kubelet_says_of_a_missing_secret_comes_with_its_remedy(server: ApiServer) -> None:
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}

    async def story(player: Player) -> None:
        token = {"name": "hub", "key": "token"}
        player.rests = True
        await player.create(run_object(model={"uri": "hf://a/b", "tokenSecretRef": token}, iterations=1))
        await player.until(lambda s: bool(s.get("fetch", {}).get("job")), "the Job")
        pods: list[dict[str, Any]] = []
        while not pods:
            pods = await player.items(collection_path(PODS, "default"))
        await player._tell(pods[0]["metadata"]["name"], {"phase": "Pending"}, {"waiting": waiting})
        run = await player.until(
            lambda s: "CreateContainerConfigError" in condition(s, "Progressing").get("message", ""), "the message"
        )
        message = condition(run["status"], "Progressing")["message"]
        assert 'secret "hub" not found. Create it in namespace default' in message
        assert "spec.model.tokenSecretRef asks for the key token of hub" in message
        player.rests = False

    scenario(server, story)
