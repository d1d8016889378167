"""The commands that look at runs, against a real API server: what the user's own rights let them see, and errors."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynalign import ClusterError, Run
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import Phase
from dynalign_operator.clusters.kubernetes.paths import PODS, collection_path, object_path
from dynalign_operator.clusters.kubernetes.pods import INDEX
from dynalign_operator.manifests.labels import JOB_NAME, read_job_labels
from lab.api_server import PATIENCE, ApiServer, start_api_server
from support.kubelet import Kubelet, a_node, serve_kubelet
from support.player import Player, is_completed, run_object, scenario, start_operator, well

pytestmark = pytest.mark.cluster

DYNALIGN = (sys.executable, "-c", "from dynalign_operator.cli.main import main; main()")
RUN = run_object(model={"uri": "bundled://smollm2-135m-instruct"}, iterations=1, generation={"shards": 2})
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "looker", "namespace": "default"},
    "rules": [{"apiGroups": ["dynalign.io"], "resources": ["alignmentruns"], "verbs": ["get", "list"]}],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with start_api_server(tmp_path_factory.mktemp("api-server") / "s") as started:
        yield started


@pytest.fixture
def kubelet(server: ApiServer, tmp_path: Path) -> Iterator[Kubelet]:
    """A node with a kubelet that has logs."""
    with serve_kubelet(tmp_path) as kubelet:
        created = server.kubectl("create", "-f-", text=json.dumps(a_node("node", kubelet.port)))
        assert created.returncode == 0, created.stderr
        status = json.dumps({"status": a_node("node", kubelet.port)["status"]})
        server.kubectl("patch", "node", "node", "--subresource=status", "--type=merge", "-p", status)
        yield kubelet
        server.kubectl("delete", "node", "node")


def command(server: ApiServer, kubeconfig: Path | None = None) -> dict[str, Any]:
    return {
        "env": {**os.environ, "KUBECONFIG": str(kubeconfig or server.kubeconfig)},
        "cwd": server.folder,
        "text": True,
    }


def dynalign(server: ApiServer, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    options = command(server, kubeconfig)
    return subprocess.run([*DYNALIGN, *arguments], capture_output=True, check=False, timeout=PATIENCE, **options)


@contextmanager
def started(server: ApiServer, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*DYNALIGN, *arguments], **pipes, **command(server)) as process:
        try:
            yield process
        finally:
            process.kill()


def stage_of(pod: dict[str, Any]) -> Stage:
    labels = read_job_labels(pod["metadata"]["labels"])
    assert labels is not None
    return labels.stage


async def bind(player: Player) -> list[dict[str, Any]]:
    """Put every pod on the node, as a scheduler does; returns the pods."""
    found = await player.items(collection_path(PODS, player.namespace))
    pods = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    for pod in pods:
        if not pod["spec"].get("nodeName"):
            name = pod["metadata"]["name"]
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}}
            target = {"target": {"apiVersion": "v1", "kind": "Node", "name": "node"}}
            await player.api.create(object_path(PODS, player.namespace, name, "binding"), {**binding, **target})
    return pods


def test_what_is_seen_of_a_run_that_works(server: ApiServer) -> None:
    """The generate stage runs until the commands have been looked at."""
    held = {Stage.GENERATE}

    async def story(player: Player) -> None:
        await player.create(RUN)
        await player.until(lambda s: s.get("stage") == "generate" and s["phase"] == "Running", "generate")
        running = "iterations"
        await player.until(lambda s: bool(s.get(running)) and s[running][0]["stages"][-1]["phase"] == "Running", "pods")
        said = dynalign(server, "describe", "r", "-n", "default")
        assert said.returncode == 0, said.stderr
        assert "r in namespace default, context x" in said.stdout
        assert "Job r-i000-generate-a1 runs generate of iteration 0, attempt 1" in said.stdout
        assert "StageSucceeded: fetch succeeded" in " ".join(said.stdout.split())
        assert "PersistentVolumeClaim r, folder /r" in said.stdout
        shown = json.loads(dynalign(server, "status", "r", "-o", "json").stdout)
        assert shown["status"]["stage"] == "generate"
        head, line = dynalign(server, "top").stdout.splitlines()
        assert head.split() == ["run", "in", "phase", "iteration", "stage", "done", "ends", "in", "GPUs", "goodput"]
        assert line.split() == ["r", "default", "Running", "1/1", "generate", "-", "-", "2", "-"]
        with started(server, "watch", "r", "-n", "default") as watching:
            assert watching.stdout is not None
            assert "r in namespace default" in watching.stdout.readline()
            held.clear()
            await player.until(is_completed, "completion")
            rest, errors = watching.communicate(timeout=PATIENCE)
        assert (watching.returncode, errors) == (0, "")
        assert "judge of iteration 0 succeeded in attempt 1." in rest
        assert "The run is complete" in rest

    with start_operator(server):
        scenario(server, story, lambda pod: "127.0.0.9" if stage_of(pod) in held else well(pod))


def test_watch_ends_with_the_exit_code_of_a_run_that_fails(server: ApiServer) -> None:
    async def story(player: Player) -> None:
        await player.create(RUN)
        await player.until(lambda s: s.get("phase") == "Failed", "the failure")
        watched = dynalign(server, "watch", "r")
        assert watched.returncode == 11
        assert "The run failed in fetch, attempt 1" in watched.stdout
        assert "(BadInput)" in watched.stdout

    with start_operator(server):
        scenario(server, story, lambda _: (11, ""))


class Held:
    """Pods of the stages prompts and generate run until they are told how to end; all others succeed at once."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet
        self._ends: dict[str, int] = {}

    def fate(self, pod: dict[str, Any]) -> tuple[int, str] | str:
        if stage_of(pod) not in (Stage.PROMPTS, Stage.GENERATE):
            return well(pod)
        code = self._ends.get(pod["metadata"]["name"])
        return "127.0.0.9" if code is None else well(pod) if code == 0 else (code, "")

    def finish(self, code: int, *pods: str) -> None:
        for pod in pods:
            self._ends[pod] = code
            self._kubelet.end(pod)

    async def running(self, player: Player, job: str, count: int) -> list[str]:
        """Names of a Job's pods by index, once so many run."""
        end = time.monotonic() + PATIENCE
        while True:
            await player.play()
            mine = [
                pod
                for pod in await bind(player)
                if pod["metadata"]["labels"].get(JOB_NAME) == job and pod["status"].get("phase") == "Running"
            ]
            if len(mine) == count:
                mine.sort(key=lambda pod: int(pod["metadata"].get("annotations", {}).get(INDEX, 0)))
                return [pod["metadata"]["name"] for pod in mine]
            assert time.monotonic() < end, f"Job {job} has no {count} running pods"


def test_logs_are_followed_over_cuts_retries_shards_and_stages(server: ApiServer, kubelet: Kubelet) -> None:
    """Attempt 1 of prompts fails, and so does a shard of generate; every line comes once."""
    held = Held(kubelet)

    async def story(player: Player) -> None:
        await player.create(RUN)
        (pod,) = await held.running(player, "r-i000-prompts-a1", 1)
        kubelet.write(pod, "one", "two")
        with started(server, "logs", "r", "-n", "default", "-f") as following:
            assert following.stdout is not None

            def reads(*lines: str) -> None:
                assert [following.stdout.readline() for _ in lines] == [f"{line}\n" for line in lines]  # type: ignore[union-attr]

            reads("one", "two")
            kubelet.cut()
            kubelet.write(pod, "\x1b[31mthree\x1b[0m")
            reads("three")
            held.finish(1, pod)
            (pod,) = await held.running(player, "r-i000-prompts-a2", 1)
            kubelet.write(pod, "again")
            reads("again")
            held.finish(0, pod)
            shards = await held.running(player, "r-i000-generate-a1", 2)
            kubelet.write(shards[1], "shard")
            reads("[generate/1] shard")
            held.finish(1, shards[1])
            shards = await held.running(player, "r-i000-generate-a1", 2)
            kubelet.write(shards[1], "restarted")
            reads("[generate/1] restarted")
            held.finish(0, *shards)
            await player.until(is_completed, "completion")
            rest, errors = following.communicate(timeout=PATIENCE)
        assert (following.returncode, rest) == (0, ""), errors
        headings = [line for line in errors.splitlines() if line.startswith("==>")]
        assert headings == [
            "==> prompts of iteration 0, attempt 1 (Job r-i000-prompts-a1) <==",
            "==> prompts of iteration 0, attempt 2 (Job r-i000-prompts-a2) <==",
            "==> generate of iteration 0, attempt 1 (Job r-i000-generate-a1) <==",
        ]
        assert dynalign(server, "logs", "r", "--stage", "prompts", "--tail", "1").stdout == "again\n"
        none = dynalign(server, "logs", "r", "--stage", "judge", "--attempt", "7")
        assert none.returncode == 11
        assert "r has no such log; it has those of fetch, attempt 1;" in none.stderr

    with start_operator(server):
        scenario(server, story, held.fate)


def test_a_quota_is_named_with_the_cluster_s_own_words(server: ApiServer) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    full = '{"status":{"hard":{"pods":"0"},"used":{"pods":"0"}}}'

    async def story(player: Player) -> None:
        assert server.apply(quota).returncode == 0
        server.kubectl("patch", "resourcequota", "none", "--subresource=status", "--type=merge", "-p", full)
        try:
            await player.create(RUN)
            await player.until(lambda s: bool(s.get("fetch", {}).get("job")), "the first Job")
            end, said = time.monotonic() + PATIENCE, ""
            while "exceeded quota" not in said:
                said = dynalign(server, "describe", "r", "-n", "default").stdout
                assert time.monotonic() < end, said
            words = " ".join(said.split())
            assert "Waits For the cluster to take its pods." in words
            assert "The cluster says: Error creating: pods" in words
            assert "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0" in words
        finally:
            server.kubectl("delete", "resourcequota", "none")

    with start_operator(server):
        scenario(server, story)


def test_python_creates_a_run_once(server: ApiServer, tmp_path: Path) -> None:
    """`Run.start("cluster")`, with the file of `dynalign run`; no operator works on it."""
    file = tmp_path / "run.yaml"
    objective, _ = yaml.safe_load_all((Path(__file__).parents[2] / "crds/samples/own-objective.yaml").read_text())
    objective["metadata"]["name"] = "mine"
    spec = RUN["spec"] | {"objective": {"configMapRef": {"name": "mine"}}}
    file.write_text(yaml.safe_dump_all([objective, {**RUN, "metadata": {"name": "py"}, "spec": spec}]))
    place: dict[str, Any] = {"namespace": "default", "kubeconfig": server.kubeconfig}
    run = Run.from_file(file, {"spec.iterations": 3}).start("cluster", **place)
    try:
        assert Run.open("py", **place).object.spec.iterations == 3
        assert run.status.phase is Phase.PENDING
        with pytest.raises(TimeoutError, match="py goes on after 0 s"):
            run.wait(timeout=0)
        with pytest.raises(ClusterError, match="has a run py already"):
            Run.from_file(file).start("cluster", **place)
        with pytest.raises(ClusterError, match="copy its folder"):
            run.samples()
        file.write_text(file.read_text().replace("name: py", "name: other").replace("hurts nobody", "hurts no one"))
        with pytest.raises(ClusterError, match="has a ConfigMap mine with other data"):
            Run.from_file(file).start("cluster", **place)
        assert server.kubectl("get", "ar", "other").returncode != 0
    finally:
        server.kubectl("delete", "ar/py", "cm/mine", "--wait=false")


def test_errors_say_what_is_wrong_and_what_to_do(server: ApiServer, tmp_path: Path) -> None:
    def ends(code: int, *words: str, arguments: tuple[str, ...], kubeconfig: Path | None = None) -> None:
        done = dynalign(server, *arguments, kubeconfig=kubeconfig)
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        for word in words:
            assert word in done.stderr

    async def story(player: Player) -> None:
        await player.create(RUN)
        ends(11, "there is no run rr in namespace default; it has r.", arguments=("describe", "rr"))
        ends(11, "Namespace default has one: -n default.", arguments=("describe", "r", "-n", "kube-system"))
        ends(10, "has no context prod; it has x.", arguments=("top", "--context", "prod"))
        ends(10, "--kubeconfig names", "which does not exist", arguments=("top", "--kubeconfig", "/nowhere"))
        (tmp_path / "odd").write_text("- a\n- list\n")
        ends(10, "cannot be read", arguments=("top",), kubeconfig=tmp_path / "odd")
        config = server.kubeconfig.read_text()
        (tmp_path / "away").write_text(re.sub("127.0.0.1:[0-9]+", "127.0.0.1:9", config))
        ends(1, "context x does not answer", arguments=("status", "r", "-n", "default"), kubeconfig=tmp_path / "away")
        (tmp_path / "late").write_text(config.replace("admin-of-the-tests", "yesterday"))
        ends(1, "does not accept your credentials", arguments=("status", "r"), kubeconfig=tmp_path / "late")
        server.kubectl("create", "serviceaccount", "guest")
        guest = server.kubeconfig_of("guest", "default")
        ends(1, "you may not get alignmentruns in namespace default", arguments=("status", "r"), kubeconfig=guest)
        ends(1, "you may not list alignmentruns in namespace default", arguments=("top",), kubeconfig=guest)
        server.apply(ROLE)
        server.kubectl("create", "rolebinding", "looker", "--role=looker", "--serviceaccount=default:guest")
        partly = dynalign(server, "describe", "r", kubeconfig=guest)
        assert partly.returncode == 0
        assert "note: you may not list jobs in namespace default" in " ".join(partly.stdout.split())
        assert "note: you may not list events" in partly.stderr
        rest = dynalign(server, "top", kubeconfig=guest)
        assert "you may not list the runs of all namespaces" in rest.stderr
        assert rest.stdout.splitlines()[1].split()[:2] == ["r", "default"]

    scenario(server, story)


def test_a_cluster_without_dynalign(server: ApiServer) -> None:
    crd = Path(__file__).parents[2] / "crds" / "dynalign.io_alignmentruns.yaml"
    assert server.kubectl("delete", "crd", "alignmentruns.dynalign.io").returncode == 0
    try:
        for arguments in (("top",), ("describe", "r", "-n", "default")):
            done = dynalign(server, *arguments)
            assert done.returncode == 10
            assert done.stderr.startswith("the cluster does not know AlignmentRuns: dynalign is not installed in it.")
    finally:
        assert server.kubectl("apply", "--server-side", "-f", str(crd)).returncode == 0
    end = time.monotonic() + PATIENCE
    while server.kubectl("get", "alignmentruns").returncode != 0:
        assert time.monotonic() < end
