"""A stand-in for a model hub that takes commits: the requests of huggingface_hub, on the loopback interface.

No hub can be reached from the tests. What it answers follows the library's own expectations, and nothing more.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from support.loopback import serve

Files = dict[str, bytes]


@dataclass
class Repository:
    """Branches, and what each commit holds."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)

    def files(self, revision: str) -> Files | None:
        """What a branch or commit holds; None where there is no such thing."""
        return self.commits.get(self.branches.get(revision, revision))


@dataclass
class HubStore:
    """A hub; `with HubStore(token) as hub` serves it at `hub.url`."""

    token: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files by digest."""
    uploads: list[str] = field(default_factory=list)
    """Digests of large files in the order in which they came."""
    fails_at: str | None = None
    """Part of a path; such requests are answered with 503."""
    damages: bool = False
    """Give out other bytes than were stored."""

    def __enter__(self) -> "HubStore":
        handler = type("Handler", (_Handler,), {"hub": self})
        self._serving = serve(handler)
        self.url = self._serving.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._serving.__exit__(kind, error, at)

    def commit(self, repository: Repository, branch: str, files: Files) -> str:
        """Add files to a branch; returns the commit."""
        contents = {**(repository.files(branch) or {}), **files}
        name = hashlib.sha1(
            repr((len(repository.commits), sorted(contents))).encode(), usedforsecurity=False
        ).hexdigest()
        repository.commits[name] = contents
        repository.branches[branch] = name
        return name


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


def _is_large(path: str) -> bool:
    return path.endswith(".safetensors")


class _Handler(BaseHTTPRequestHandler):
    hub: HubStore
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._respond(b"")

    def do_GET(self) -> None:
        self._respond(b"")

    def do_POST(self) -> None:
        self._respond(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        self._respond(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _respond(self, body: bytes) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path).strip("/")
        parts = path.split("/")
        if hub.fails_at is not None and hub.fails_at in path:
            self._json({"error": "busy"}, 503)
        elif parts[0] == "lfs" and self.command == "PUT":
            digest = hashlib.sha256(body).hexdigest()
            assert digest == parts[1]
            hub.objects[digest] = body
            hub.uploads.append(digest)
            self._json({})
        elif self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._json({"error": "Invalid credentials"}, 401)
        elif path == "api/repos/create":
            self._create(json.loads(body))
        elif path == "api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        else:
            self._of_repository(parts, body)

    def _create(self, wanted: dict[str, Any]) -> None:
        name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
        name = f"datasets/{name}" if wanted.get("type") == "dataset" else name
        is_new = name not in self.hub.repositories
        if is_new:
            repository = self.hub.repositories[name] = Repository(wanted.get("visibility") == "private")
            self.hub.commit(repository, "main", {})
        self._json({"url": f"{self.hub.url}/{name}"}, 200 if is_new else 409)

    def _batch(self, wanted: dict[str, Any]) -> None:
        def entry(one: dict[str, Any]) -> dict[str, Any]:
            if one["oid"] in self.hub.objects:
                return one
            return {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}

        self._json({"transfer": "basic", "objects": [entry(one) for one in wanted["objects"]]})

    def _of_repository(self, parts: list[str], body: bytes) -> None:
        is_data = "datasets" in parts[:2]
        parts = [part for index, part in enumerate(parts) if index > 1 or part != "datasets"]
        is_api = parts[0] == "api"
        parts = ["api", "models", *parts[1:]] if is_api and is_data else parts
        name, rest = "/".join(parts[2:4] if is_api else parts[:2]), parts[4:] if is_api else parts[2:]
        repository = self.hub.repositories.get(f"datasets/{name}" if is_data else name)
        if repository is None:
            self._json({"error": "Repository not found"}, 404)
            return
        what, revision = rest[0], rest[1]
        if what == "branch":
            self._branch(repository, revision)
        elif what == "preupload":
            self._preupload(json.loads(body))
        elif what == "commit":
            self._commit(repository, revision, body)
        elif (files := repository.files(revision)) is None:
            self._json({"error": "Revision not found"}, 404)
        elif what == "tree":
            self._json([_entry(path, files[path]) for path in sorted(files)])
        elif what == "resolve":
            data = files["/".join(rest[2:])]
            self._send(data[:-1] + b"?" if self.hub.damages else data)
        else:
            self._json({"id": name, "sha": repository.branches.get(revision, revision), "siblings": []})

    def _branch(self, repository: Repository, branch: str) -> None:
        is_new = branch not in repository.branches
        repository.branches.setdefault(branch, repository.branches["main"])
        self._json({}, 201 if is_new else 409)

    def _preupload(self, wanted: dict[str, Any]) -> None:
        modes = [
            {"path": one["path"], "uploadMode": "lfs" if _is_large(one["path"]) else "regular", "shouldIgnore": False}
            for one in wanted["files"]
        ]
        self._json({"files": modes})

    def _commit(self, repository: Repository, branch: str, body: bytes) -> None:
        files: Files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        name = self.hub.commit(repository, branch, files)
        self._json({"success": True, "commitOid": name, "commitUrl": f"{self.hub.url}/org/name/commit/{name}"})

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status)

    def _send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def _entry(path: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
    return {"type": "file", "path": path, "size": len(data), "oid": _git(data), **(large if _is_large(path) else {})}
