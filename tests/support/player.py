"""A cluster without nodes: the player takes the kubelet's place, the operator is the real process."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from dynalign_contract.layout import stage_folder
from dynalign_contract.result import Metric, PartResult
from dynalign_contract.stages import PART_STAGES, Stage, iteration_of_part
from dynalign_operator.clusters.kubernetes.api import KubeApi, RefusedError, open_kube_api
from dynalign_operator.clusters.kubernetes.paths import JOBS, PODS, RUNS, ApiPath, collection_path, object_path
from dynalign_operator.manifests.labels import read_job_labels
from lab.api_server import PATIENCE, ApiServer
from support.builders import a_result, an_artifact

Objects = list[dict[str, Any]]
Fate = Callable[[dict[str, Any]], tuple[int, str] | str]
"""Pod -> exit code and termination message; or, while it is to go on running, its IP address."""


def run_object(name: str = "r", namespace: str = "default", **spec: object) -> dict[str, Any]:
    """An AlignmentRun as a user writes it, of separate Jobs."""
    metadata, spec = {"name": name, "namespace": namespace}, {"rollout": "Separate", **spec}
    return {"apiVersion": "dynalign.io/v1alpha1", "kind": "AlignmentRun", "metadata": metadata, "spec": spec}


RAN: Final = timedelta(minutes=1)
"""How long every pod that has ended is said to have run."""


def report(pod: dict[str, Any], numbers: dict[Stage, dict[str, float | None]]) -> tuple[int, str]:
    """A success as a real stage tells it, with the numbers of its stage."""
    labels = read_job_labels(pod["metadata"]["labels"])
    assert labels is not None
    result = a_result(path=stage_folder(labels.stage, labels.iteration))
    metrics = tuple(Metric(name=name, value=value) for name, value in numbers.get(labels.stage, {}).items())
    result = result.model_copy(update={"metrics": metrics})
    if labels.stage is Stage.ROLLOUT:
        result = result.model_copy(update={"parts": _parts(pod, labels.iteration, numbers)})
    return 0, result.encode().decode()


def _parts(
    pod: dict[str, Any], iteration: int | None, numbers: dict[Stage, dict[str, float | None]]
) -> dict[Stage, PartResult]:
    """What a rollout's pod reports: shard 0 alone has written prompts, and evaluated the iteration before."""
    assert iteration is not None
    stages = [stage for stage in PART_STAGES if stage is not Stage.EVALUATE or iteration]
    index = int(pod["metadata"]["annotations"].get("batch.kubernetes.io/job-completion-index", 0))
    return {
        stage: PartResult(
            artifact=an_artifact(stage_folder(stage, iteration_of_part(stage, iteration))),
            metrics=numbers.get(stage, {}),
            seconds=5.0,
        )
        for stage in stages
        if stage not in (Stage.PROMPTS, Stage.EVALUATE) or index == 0
    }


def well(pod: dict[str, Any]) -> tuple[int, str]:
    """Every stage succeeds."""
    judged: dict[str, float | None] = {"reward": 0.5, "undefined": None}
    evaluated: dict[str, float | None] = {
        "win_rate": 0.6,
        "capability": 0.5,
        "capability_delta": -0.0123456789,
        "regressed": 0.0,
    }
    return report(pod, {Stage.JUDGE: judged, Stage.EVALUATE: evaluated})


def is_completed(status: dict[str, Any]) -> bool:
    return any(c["type"] == "Completed" and c["status"] == "True" for c in status.get("conditions", ()))


COLLECTOR_PATIENCE = 240.0
"""Seconds within which the garbage collector removes what a run owned. It learns of a new CRD up to half a minute later,
and tries again after pauses that double what it could not resolve before."""


@dataclass
class Player:
    """Plays the kubelet of one namespace: every pod fares as `fate` says."""

    api: KubeApi
    fate: Fate
    namespace: str = "default"
    rests: bool = False
    """Whether it leaves all pods as they are."""

    @property
    def runs(self) -> ApiPath:
        """Path of the namespace's runs."""
        return collection_path(RUNS, self.namespace)

    async def create(self, run: dict[str, Any]) -> None:
        """Create a run."""
        assert await self.api.create(self.runs, run) is not None, "there is a run of this name already"

    async def items(self, path: ApiPath) -> Objects:
        found: Objects = (await self.api.get(path) or {}).get("items", [])
        return found

    async def jobs(self) -> Objects:
        """All Jobs of the namespace."""
        return await self.items(collection_path(JOBS, self.namespace))

    async def play(self) -> None:
        """Do once what a kubelet does all the time."""
        if self.rests:
            return
        for pod in await self.items(collection_path(PODS, self.namespace)):
            name, phase = pod["metadata"]["name"], pod["status"].get("phase")
            if "deletionTimestamp" in pod["metadata"]:
                path = ApiPath(f"{object_path(PODS, self.namespace, name)}?gracePeriodSeconds=0")
                await self.api.delete(path, propagation="Background")
            elif phase in ("Pending", "Running"):
                fate = self.fate(pod)
                if not isinstance(fate, str):
                    await self._end(name, *fate)
                elif phase == "Pending":
                    await self._run(name, fate)

    async def _run(self, name: str, address: str) -> None:
        running = {"running": {"startedAt": _now()}}
        await self._tell(name, {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}, running)

    async def _end(self, name: str, code: int, message: str) -> None:
        terminated = {"exitCode": code, "message": message, "startedAt": _now(-RAN), "finishedAt": _now()}
        await self._tell(name, {"phase": "Failed" if code else "Succeeded"}, {"terminated": terminated})

    async def _tell(self, name: str, status: dict[str, Any], state: dict[str, Any]) -> None:
        container = {
            "name": "stage",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        path = object_path(PODS, self.namespace, name, "status")
        body = {"status": {**status, "containerStatuses": [container]}}
        try:
            await self.api._request("PATCH", path, "play", body, "application/merge-patch+json")
        except RefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND:  # a pod may go while it is looked at
                raise

    async def until(self, condition: Callable[[dict[str, Any]], bool], what: str, run: str = "r") -> dict[str, Any]:
        """Play until the run's status is as wished."""
        end = time.monotonic() + PATIENCE
        while True:
            await self.play()
            found = await self.api.get(object_path(RUNS, self.namespace, run)) or {}
            if condition(found.get("status") or {}):
                return found
            assert time.monotonic() < end, f"{what} did not happen; the status is {found.get('status')}"
            await asyncio.sleep(0.02)  # between two looks at it

    async def remove(self, run: str = "r") -> None:
        """Delete the run, and play until its Jobs are gone."""
        await self.api.delete(object_path(RUNS, self.namespace, run), propagation="Background")
        end = time.monotonic() + COLLECTOR_PATIENCE
        while left := await self.jobs():
            await self.play()
            assert time.monotonic() < end, f"Jobs of a deleted run are left: {[job['metadata'] for job in left]}"
            await asyncio.sleep(0.1)  # between two looks at it


def _now(after: timedelta = timedelta(0)) -> str:
    return (datetime.now(UTC) + after).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def start_operator(
    server: ApiServer, kubeconfig: Path | None = None, **settings: str
) -> Iterator[subprocess.Popen[str]]:
    """Run the operator with these `DYNALIGN_*` settings; with the rights of an administrator unless told otherwise."""
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig or server.kubeconfig),
        "DYNALIGN_PROBE_PORT": "0",
        "DYNALIGN_METRICS_PORT": "0",
        "DYNALIGN_PROGRESS": "Off",
        **settings,
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
    server: ApiServer,
    story: Callable[[Player], Awaitable[None]],
    fate: Fate = well,
    namespace: str = "default",
) -> None:
    """Run a story with a player, who is an administrator; the run `r` is deleted when it ends."""

    async def main() -> None:
        async with open_kube_api() as api:
            player = Player(api, fate, namespace)
            try:
                await story(player)
            finally:
                await player.remove()

    with patch.dict(os.environ, KUBECONFIG=str(server.kubeconfig)):
        asyncio.run(main())
