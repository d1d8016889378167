"""The operator against a real API server, etcd and Job controller; the test plays the kubelet."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.layout import stage_folder
from dynalign_contract.result import Metric
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.clusters.kube_api import KubeApi, open_kube_api
from dynalign_operator.manifests.labels import read_job_labels
from support.api_server import PATIENCE, ApiServer, start_api_server
from support.builders import a_result

pytestmark = pytest.mark.cluster

RUN = {
    "apiVersion": "dynalign.io/v1alpha1",
    "kind": "AlignmentRun",
    "metadata": {"name": "r", "namespace": "default"},
    "spec": {"model": {"uri": "bundled://smollm2-135m-instruct"}, "iterations": 2},
}
PATH = "/apis/dynalign.io/v1alpha1/namespaces/default/alignmentruns"
Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with start_api_server(tmp_path_factory.mktemp("api-server") / "s") as started:
        yield started


@dataclass
class Player:
    """Plays the kubelet: runs every pending pod, and ends it as `fate` says."""

    api: KubeApi
    fate: Callable[[dict[str, Any]], tuple[int, str]]
    """Pod -> exit code and termination message."""

    async def items(self, path: str) -> Objects:
        found: Objects = (await self.api.get(path) or {}).get("items", [])
        return found

    async def play(self) -> None:
        for pod in await self.items("/api/v1/namespaces/default/pods"):
            if pod["status"].get("phase") == "Pending" and "deletionTimestamp" not in pod["metadata"]:
                code, message = self.fate(pod)
                await self._end(pod["metadata"]["name"], code, message)
            elif "deletionTimestamp" in pod["metadata"]:
                path = f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}?gracePeriodSeconds=0"
                await self.api.delete(path, propagation="Background")

    async def _end(self, name: str, code: int, message: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        terminated = {"exitCode": code, "message": message, "startedAt": now, "finishedAt": now}
        container = {
            "name": "stage",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": terminated},
        }
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}
        path = f"/api/v1/namespaces/default/pods/{name}/status"
        await self.api._request("PATCH", path, "play", {"status": status}, "application/merge-patch+json")

    async def until(self, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Play until the run's status is as wished."""
        end = time.monotonic() + PATIENCE
        while True:
            await self.play()
            run = await self.api.get(f"{PATH}/r") or {}
            if condition(run.get("status") or {}):
                return run
            assert time.monotonic() < end, f"{what} did not happen; the status is {run.get('status')}"
            await asyncio.sleep(0.02)


def well(pod: dict[str, Any]) -> tuple[int, str]:
    """A success such as the real stage reports."""
    labels = read_job_labels(pod["metadata"]["labels"])
    assert labels is not None
    numbers = {Stage.JUDGE: {"reward": 0.5, "undefined": None}, Stage.EVALUATE: {"win_rate": 0.6, "regressed": 0.0}}
    result = a_result(path=stage_folder(labels.stage, labels.iteration))
    metrics = tuple(Metric(name=name, value=value) for name, value in numbers.get(labels.stage, {}).items())
    return 0, result.model_copy(update={"metrics": metrics}).encode().decode()


@contextmanager
def operator(server: ApiServer, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "KUBECONFIG": str(server.kubeconfig),
        "DYNALIGN_PROBE_PORT": "0",
        "DYNALIGN_METRICS_PORT": str(port),
        "DYNALIGN_PROGRESS": "Off",
    }
    command = [sys.executable, "-m", "dynalign_operator"]
    with (
        (server.folder / "operator.log").open("a") as log,
        subprocess.Popen(command, env=environment, stderr=log, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def scenario(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, fate: Callable[[dict[str, Any]], tuple[int, str]], story: Any
) -> None:
    """Run an asynchronous story with a player; the run is deleted when it ends."""
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))

    async def main() -> None:
        async with open_kube_api() as api:
            player = Player(api, fate)
            try:
                await story(player)
            finally:
                await api.delete(f"{PATH}/r", propagation="Background")
                end = time.monotonic() + PATIENCE
                while await player.items("/apis/batch/v1/namespaces/default/jobs"):
                    await player.play()
                    assert time.monotonic() < end, "Jobs of a deleted run are left"
                    await asyncio.sleep(0.1)

    asyncio.run(main())


def is_completed(status: dict[str, Any]) -> bool:
    return any(c["type"] == "Completed" and c["status"] == "True" for c in status.get("conditions", ()))


def test_a_run_to_its_end_and_on(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(player: Player) -> None:
        await player.api.create(PATH, RUN)
        run = await player.until(is_completed, "completion")
        jobs = await player.items("/apis/batch/v1/namespaces/default/jobs")
        assert len(jobs) == 2 + 2 * len(ITERATION_STAGES)
        assert len({job["metadata"]["name"] for job in jobs}) == len(jobs)
        assert run["status"]["phase"] == "Succeeded"
        assert run["metadata"].get("finalizers") is None
        assert not any("kopf" in name for name in run["metadata"].get("annotations") or {})
        columns = server.kubectl("get", "ar", "r").stdout.splitlines()
        assert columns[0].split() == ["NAME", "PHASE", "ITERATION", "STAGE", "PROGRESS", "REWARD", "WINRATE", "AGE"]
        assert columns[1].split()[:2] == ["r", "Succeeded"]
        assert "0.5" in columns[1]
        assert "0.6" in columns[1]

        grown = server.kubectl("patch", "ar", "r", "--type=merge", "-p", '{"spec":{"iterations":3}}')
        assert grown.returncode == 0, grown.stderr
        await player.until(lambda s: is_completed(s) and len(s["iterations"]) == 3, "the third iteration")
        events = server.kubectl("get", "events", "--field-selector=involvedObject.name=r").stdout
        assert "StageSucceeded" in events
        assert "RunSucceeded" in events

    with operator(server):
        scenario(server, monkeypatch, well, story)


def test_an_operator_killed_at_every_edge_makes_no_job_twice(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(player: Player) -> None:
        await player.api.create(PATH, RUN)
        seen: list[tuple[str | None, int | None]] = []
        status: dict[str, Any] = {}
        while not is_completed(status):
            with operator(server):
                now = (status.get("stage"), status.get("iteration"))

                def moved(new: dict[str, Any], now: tuple[str | None, int | None] = now) -> bool:
                    return bool(new) and ((new.get("stage"), new.get("iteration")) != now or is_completed(new))

                status = (await player.until(moved, f"a step after {now}"))["status"]
            seen.append((status.get("stage"), status.get("iteration")))
        jobs = await player.items("/apis/batch/v1/namespaces/default/jobs")
        assert sorted(job["metadata"]["name"] for job in jobs) == sorted(
            ["r-fetch-a1", "r-export-a1", *(f"r-i{i:03d}-{s}-a1" for i in range(2) for s in ITERATION_STAGES)]
        )
        assert len(seen) >= 3

    scenario(server, monkeypatch, well, story)


def test_a_name_that_is_taken_is_said_and_freed_again(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "r-fetch-a1", "namespace": "default"}}

    def stalled(status: dict[str, Any]) -> dict[str, Any]:
        return next((c for c in status.get("conditions", ()) if c["type"] == "Stalled"), {})

    async def story(player: Player) -> None:
        assert server.apply(foreign).returncode == 0
        await player.api.create(PATH, RUN)
        run = await player.until(lambda s: stalled(s).get("status") == "True", "the stall")
        assert stalled(run["status"])["reason"] == "NameTaken"
        assert "ConfigMap r-fetch-a1 already in namespace default" in stalled(run["status"])["message"]
        server.kubectl("delete", "configmap", "r-fetch-a1")
        run = await player.until(lambda s: s.get("stage") == "generate", "the second step")
        assert stalled(run["status"])["status"] == "False"

    with operator(server):
        scenario(server, monkeypatch, well, story)


def test_bad_input_is_final_and_says_why(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(player: Player) -> None:
        await player.api.create(PATH, RUN)
        run = await player.until(lambda s: s.get("phase") == "Failed", "the failure")
        stalled = next(c for c in run["status"]["conditions"] if c["type"] == "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "BadInput")
        assert len(await player.items("/apis/batch/v1/namespaces/default/jobs")) == 1

    with operator(server):
        scenario(server, monkeypatch, lambda _: (11, ""), story)


def test_suspend_deletes_the_job_and_resume_goes_on(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(player: Player) -> None:
        play, player.play = player.play, lambda: asyncio.sleep(0)  # type: ignore[method-assign]
        await player.api.create(PATH, RUN)
        await player.until(lambda s: s.get("stage") == "fetch" and s["fetch"]["job"] != "", "the first Job")
        server.kubectl("patch", "ar", "r", "--type=merge", "-p", '{"spec":{"suspend":true}}')
        player.play = play  # type: ignore[method-assign]
        await player.until(lambda s: s.get("phase") == "Suspended", "the suspension")
        server.kubectl("patch", "ar", "r", "--type=merge", "-p", '{"spec":{"suspend":false}}')
        await player.until(is_completed, "completion")

    with operator(server):
        scenario(server, monkeypatch, well, story)


def test_probes_metrics_and_a_graceful_end(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    port = 19464

    async def story(player: Player) -> None:
        await player.api.create(PATH, RUN)
        await player.until(is_completed, "completion")
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        assert 'dynalign_run_progress_ratio{namespace="default",run="r"} 1.0' in text
        assert 'dynalign_run_win_rate{namespace="default",run="r"} 0.6' in text

    with operator(server, port) as process:
        scenario(server, monkeypatch, well, story)
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        assert "dynalign_run_progress_ratio{" not in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0


def test_the_schema_refuses_before_anything_is_made(server: ApiServer) -> None:
    for spec, sentence in (
        ({"model": {"uri": "x"}, "iterations": 0}, "spec.iterations"),
        ({"model": {"uri": "bundled://x"}, "colour": "red"}, "spec.colour"),
    ):
        applied = server.apply({**RUN, "spec": spec})
        assert applied.returncode != 0
        assert sentence in applied.stderr


def test_bad_run_files_are_refused_or_pass_the_schema(server: ApiServer) -> None:
    """Nothing in data/bad_runs breaks the API server; most of it is refused there already."""
    files = sorted((Path(__file__).parents[1] / "data" / "bad_runs").glob("*.yaml"))
    refused = [f for f in files if server.kubectl("apply", "--dry-run=server", "-f", str(f)).returncode != 0]
    assert len(refused) >= 0.7 * len(files), [file.name for file in files if file not in refused]
