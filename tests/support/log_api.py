"""An API server on loopback with the run, Job and pods of a simulation, and with logs that connections are cut in."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.kubernetes.pods import INDEX
from dynalign_operator.manifests.labels import JOB_NAME
from dynalign_operator.planning.plan import JobBundle
from support.recording_api import Object, RecordingApi, _kubeconfig, resolved

_CREATED = "2026-01-01T00:00:{:02d}Z"


@dataclass
class LogApi(RecordingApi):
    """Answers what the commands of the terminal ask for; a path in `refused` is answered with that status."""

    refused: dict[str, int] = field(default_factory=dict)
    events: list[Object] = field(default_factory=list)
    logs: dict[str, list[list[str]]] = field(default_factory=dict)
    """Pod -> the lines that each further connection finds; it is closed after them, as by a load balancer."""

    def put_run(self, run: AlignmentRun) -> None:
        """Store the run as it is now."""
        namespace, name = run.metadata.namespace, run.metadata.name
        stored = json.loads(run.to_json())
        stored["metadata"]["uid"] = run.metadata.uid
        self.put(f"/apis/dynalign.io/v1alpha1/namespaces/{namespace}/alignmentruns/{name}", stored)

    def put_job(self, bundle: JobBundle, second: int, *states: Object) -> None:
        """Store a Job that was created at this second, and a pod for each state of its container."""
        job = json.loads(json.dumps(bundle.job))
        job["metadata"] |= {"uid": f"uid-of-{bundle.name}", "creationTimestamp": _CREATED.format(second)}
        namespace = job["metadata"]["namespace"]
        self.put(f"/apis/batch/v1/namespaces/{namespace}/jobs/{bundle.name}", {**job, "status": {}})
        for index, state in enumerate(states):
            name = f"{bundle.name}-{index}"
            metadata = {
                "name": name,
                "namespace": namespace,
                "creationTimestamp": _CREATED.format(second),
                "labels": {**job["metadata"]["labels"], JOB_NAME: bundle.name},
                "annotations": {INDEX: str(index)},
                "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}],
            }
            status = {"phase": "Running", "containerStatuses": [{"name": "stage", "state": state}]}
            self.put(f"/api/v1/namespaces/{namespace}/pods/{name}", {"metadata": metadata, "status": status})

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:  # type: ignore[override]
        """Refuse, send events or a log, or answer as the recording API does."""
        path = resolved(request.raw_path)
        if path in self.refused:
            self.requests.append((request.method, request.raw_path))
            return web.json_response({"message": f"{path} is refused"}, status=self.refused[path])
        if path.endswith("/events"):
            selector = dict(pair.split("=") for pair in request.query["fieldSelector"].split(","))
            wanted = {"kind": selector["involvedObject.kind"], "name": selector["involvedObject.name"]}
            found = [event for event in self.events if wanted.items() <= event["involvedObject"].items()]
            return web.json_response({"items": found})
        if path.endswith("/log"):
            return await self._send_log(request, path.split("/")[-2])
        if path == "/apis/dynalign.io/v1alpha1/alignmentruns":
            runs = [thing for at, thing in self.objects.items() if at.split("/")[-2] == "alignmentruns"]
            return web.json_response({"items": runs})
        return await super().answer(request)

    async def _send_log(self, request: web.BaseRequest, pod: str) -> web.StreamResponse:
        """Lines have the second of their number as time stamp; a later connection repeats that of `sinceTime`."""
        self.requests.append((request.method, request.raw_path))
        follow = "follow" in request.query
        parts = self.logs.get(pod, [])
        taken = parts[: 1 + sum(f"/pods/{pod}/log" in path for path in self.paths[:-1])] if follow else parts
        lines = [line for part in taken for line in part]
        response = web.StreamResponse()
        await response.prepare(request)
        first = max(0, len(lines) - int(request.query.get("tailLines", len(lines))))
        for number, line in enumerate(lines):
            stamp = f"2026-01-01T00:00:{number:02d}.000000000Z"
            if number >= first and stamp[:19] >= request.query.get("sinceTime", "")[:19]:
                text = f"{stamp} {line}\n" if "timestamps" in request.query else f"{line}\n"
                await response.write(text.encode())
        await response.write_eof()
        return response


@asynccontextmanager
async def log_api(folder: Path) -> AsyncIterator[tuple[LogApi, Path]]:
    """The server and a kubeconfig that leads to it."""
    api = LogApi()
    runner = web.ServerRunner(web.Server(api.answer, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(f"http://127.0.0.1:{runner.addresses[0][1]}")))
        yield api, kubeconfig
    finally:
        await runner.cleanup()


def running() -> dict[str, Any]:
    """State of a container that runs."""
    return {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def ended(code: int = 0) -> dict[str, Any]:
    """State of a container that has ended."""
    return {"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:01:00Z", "startedAt": "2026-01-01T00:00:00Z"}}
