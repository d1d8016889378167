"""A hub on the loopback interface that speaks the requests of huggingface_hub and datasets, and can fail as hubs do."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.loopback import serve


def commit_id(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


@dataclass
class Hub:
    """One model's repository and its behaviour; `with Hub(...) as hub` serves it at `hub.url`."""

    repository: str
    folder: Path
    datasets: Mapping[str, Path] = field(default_factory=dict)
    """Repositories of data sets by name, which may have folders."""
    commit: str = commit_id("first")
    """What the branch `main` means now."""
    cut_once_at: int | None = None
    """Break the connection after this many bytes of the first weight file that is sent."""
    broken: bool = False
    """Answer every request for a weight file with 503."""
    error: tuple[int, str] | None = None
    """Status and X-Error-Code of every answer."""
    token: str | None = None
    """Required as bearer token."""
    ranges: list[str] = field(default_factory=list)
    """Range headers that were asked for."""
    sent: list[str] = field(default_factory=list)
    """Names of the files whose contents were asked for."""
    commits: set[str] = field(default_factory=set)
    """Commits whose files were asked for."""

    def __enter__(self) -> "Hub":
        self._serving = serve(_handler(self))
        self.url = self._serving.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._serving.__exit__(kind, error, at)

    def describe(self) -> dict[str, Any]:
        siblings = [{"rfilename": path.name} for path in sorted(self.folder.iterdir())]
        return {"id": self.repository, "modelId": self.repository, "sha": self.commit, "siblings": siblings}

    def tree(self) -> list[dict[str, Any]]:
        return [_entry(path, self.folder) for path in sorted(self.folder.iterdir())]


def _entry(path: Path, root: Path) -> dict[str, Any]:
    """What the hub tells about a file or folder of a repository."""
    kind = {"type": "directory", "size": 0, "oid": commit_id(str(path))}
    if path.is_file():
        kind = {"type": "file", "size": path.stat().st_size, "oid": _etag(path)}
    return {"path": path.relative_to(root).as_posix(), **kind}


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    _form: dict[str, list[str]]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._respond(with_body=False)

    def do_GET(self) -> None:
        self._respond(with_body=True)

    def do_POST(self) -> None:
        self._form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._respond(with_body=True)

    def _respond(self, *, with_body: bool) -> None:
        hub = self.hub
        parts = urlsplit(self.path).path.strip("/").split("/")
        if hub.error is not None:
            self._refuse(*hub.error)
        elif hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._refuse(401, "RepoNotFound")
        elif parts[:2] == ["api", "models"]:
            self._describe("/".join(parts[2:4]), *parts[4:6])
        elif parts[:2] == ["api", "datasets"]:
            self._describe_dataset("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "datasets":
            self._dataset_file("/".join(parts[1:3]), "/".join(parts[5:]), with_body=with_body)
        else:
            hub.commits.add(parts[3])
            self._file(hub.folder / parts[-1], parts[3], with_body=with_body)

    def _describe(self, repository: str, what: str, revision: str) -> None:
        if repository != self.hub.repository:
            self._refuse(404, "RepoNotFound")
        elif what == "revision" and revision not in ("main", self.hub.commit):
            self._refuse(404, "RevisionNotFound")
        else:
            self._json(self.hub.tree() if what == "tree" else self.hub.describe())

    def _describe_dataset(self, name: str, question: list[str]) -> None:
        """What is asked: nothing or `revision`, `tree` with a folder, or `paths-info` with paths in the form."""
        if (root := self.hub.datasets.get(name)) is None:
            self._refuse(404, "RepoNotFound")
            return
        what, under = (question or ["revision"])[0], question[2:]
        entries = [_entry(path, root) for path in sorted(root.rglob("*"))]
        if what == "tree":
            within = "/".join([*under, ""])
            is_deep = "recursive=true" in self.path.lower()
            found = [entry for entry in entries if entry["path"].startswith(within)]
            self._json([entry for entry in found if is_deep or "/" not in entry["path"].removeprefix(within)])
        elif what == "paths-info":
            self._json([entry for entry in entries if entry["path"] in self._form["paths"]])
        else:
            siblings = [{"rfilename": entry["path"]} for entry in entries if entry["type"] == "file"]
            self._json({"id": name, "sha": self.hub.commit, "siblings": siblings})

    def _dataset_file(self, name: str, path: str, *, with_body: bool) -> None:
        if (root := self.hub.datasets.get(name)) is None:
            self._refuse(404, "RepoNotFound")
        elif not (root / path).is_file():
            self._refuse(404, "EntryNotFound")
        else:
            self._file(root / path, self.hub.commit, with_body=with_body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, path: Path, commit: str, *, with_body: bool) -> None:
        weights = path.suffix == ".safetensors"
        if with_body and weights and self.hub.broken:
            self._refuse(503, "")
            return
        data = path.read_bytes()
        start = 0
        if asked := self.headers.get("Range"):
            self.hub.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{_etag(path)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if with_body:
            self.hub.sent.append(path.name)
            self._send(data[start:], weights=weights)

    def _send(self, data: bytes, *, weights: bool) -> None:
        if not weights or self.hub.cut_once_at is None:
            self.wfile.write(data)
            return
        self.wfile.write(data[: self.hub.cut_once_at])
        self.hub.cut_once_at = None
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep quiet."""
