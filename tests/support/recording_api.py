"""An API server on loopback that keeps every request as it came over the wire, and has just enough behind it."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

import yaml
from aiohttp import web

from dynalign_operator.clusters.kubernetes.api import KubeApi, open_kube_api

Object = dict[str, Any]


@dataclass
class RecordingApi:
    """Objects by decoded path, and the requests that came: method and path, not a byte of it changed."""

    objects: dict[str, Object] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    host: str = ""

    @property
    def paths(self) -> list[str]:
        """What was asked for."""
        return [path for _, path in self.requests]

    def put(self, path: str, thing: Object) -> None:
        """Store an object."""
        self.objects[path] = thing

    def created(self, plural: str) -> list[Object]:
        """What the collections of this kind hold."""
        return [thing for path, thing in self.objects.items() if path.split("/")[-2] == plural]

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Read, create, delete, and replace a status, as far as the operator can tell."""
        self.requests.append((request.method, request.raw_path))
        path = resolved(request.raw_path)
        match request.method:
            case "GET":
                found = self.objects.get(path)
                if found is None and path.split("/")[-1] in ("pods", "jobs", "alignmentruns"):
                    found = {"items": [thing for at, thing in self.objects.items() if at.rpartition("/")[0] == path]}
            case "POST":
                found = await request.json()
                name = found["metadata"].get("name", f"generated-{len(self.objects)}")
                found["metadata"] |= {"name": name, "uid": f"uid-of-{name}", "resourceVersion": "1"}
                found["metadata"].setdefault("creationTimestamp", "2026-11-24T10:00:00Z")
                if f"{path}/{name}" in self.objects:
                    return web.json_response({"message": "it exists"}, status=409)
                self.put(f"{path}/{name}", found)
            case "PATCH":
                found = self.objects.get(path.removesuffix("/status"))
                change = await request.json()
                if found is not None:
                    if isinstance(change, list):
                        found = {**found, "status": change[-1]["value"]}
                    else:
                        found = {**found, "metadata": {**found["metadata"], **change.get("metadata", {})}}
                    self.put(path.removesuffix("/status"), found)
            case _:
                found = self.objects.pop(path, None)
        if found is None:
            return web.json_response({"message": f"{path} not found"}, status=404)
        return web.json_response(found)


def resolved(raw: str) -> str:
    """Where a careless server would look: everything decoded, `..` followed, no query."""
    segments: list[str] = []
    for segment in unquote(unquote(raw.partition("?")[0])).split("/"):
        if segment == "..":
            segments = segments[:-1]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)


@asynccontextmanager
async def recording_api(
    folder: Path, objects: Iterable[tuple[str, Object]] = ()
) -> AsyncIterator[tuple[RecordingApi, KubeApi]]:
    """The server, and the operator's own client of it, which finds it by a KUBECONFIG in `folder`."""
    api = RecordingApi(objects=dict(objects))
    runner = web.ServerRunner(web.Server(api.answer, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with client_of(folder, api.host) as client:
            yield api, client
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client_of(folder: Path, host: str) -> AsyncIterator[KubeApi]:
    """The operator's own client of an API server at this URL."""
    config = folder / "kubeconfig"
    config.write_text(yaml.safe_dump(_kubeconfig(host)))
    with patch.dict("os.environ", {"KUBECONFIG": str(config)}):
        async with open_kube_api() as client:
            yield client


def _kubeconfig(host: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": host}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
