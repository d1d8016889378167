"""Paths of the API: whatever a name holds, it is one segment of the path, over the wire too."""

import asyncio
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

import dynalign_operator
from dynalign_operator.clusters.kubernetes.paths import (
    CONFIG_MAPS,
    JOBS,
    PODS,
    RUNS,
    UnsafePathError,
    collection_path,
    object_path,
)
from support.recording_api import recording_api

STRANGE = [
    *("a?watch=true", "a#b", "a;b", "...", ". ", "a b", "\u00e9", "\u2024\u2024", "\uff0e\uff0e", "a:9464", "a&b=c"),
    *("a+b", "@", "*"),
]
LEADS_ELSEWHERE = [
    *("", ".", "..", "a\0b", "\ud800", "../../kube-system/configmaps/x", "..%2f..", "%2e%2e", "%252e%252e", "a/b"),
    *("/etc", "a\nb", "a\tb", "a\\..\\b", "http://other/"),
]


def test_ordinary_names_are_sent_as_people_write_them() -> None:
    assert object_path(JOBS, "team", "r-fetch-a1") == "/apis/batch/v1/namespaces/team/jobs/r-fetch-a1"
    assert collection_path(PODS, None) == "/api/v1/pods"
    assert object_path(RUNS, "n", "r.x", "status").endswith("/namespaces/n/alignmentruns/r.x/status")
    query: dict[str, str | int] = {"labelSelector": "a/b=c,d", "limit": 500}
    assert collection_path(PODS, "n", query) == "/api/v1/namespaces/n/pods?labelSelector=a%2Fb%3Dc%2Cd&limit=500"


@pytest.mark.parametrize("name", LEADS_ELSEWHERE)
@pytest.mark.parametrize("place", ["namespace", "name", "subresource"])
def test_what_no_object_is_called_has_no_path(name: str, place: str) -> None:
    parts = {"namespace": "n", "name": "o", "subresource": "status"} | {place: name}
    with pytest.raises(UnsafePathError):
        object_path(CONFIG_MAPS, *parts.values())


def test_strange_names_stay_one_segment_over_the_wire(tmp_path: Path) -> None:
    """With the client that the operator has: yarl and aiohttp normalise what is not marked as encoded."""

    async def ask() -> list[str]:
        async with recording_api(tmp_path) as (server, api):
            for name in STRANGE:
                assert await api.get(object_path(CONFIG_MAPS, "team-a", name)) is None
                await api.get(collection_path(PODS, "team-a", {"labelSelector": name}))
            return server.paths

    asked = asyncio.run(ask())
    for name, path in zip(STRANGE, asked[::2], strict=True):
        head, last = path.rsplit("/", 1)
        assert (head, unquote(last)) == ("/api/v1/namespaces/team-a/configmaps", name)
        assert not re.search(r"[^A-Za-z0-9._~%-]", last), path
    for name, path in zip(STRANGE, asked[1::2], strict=True):
        place, _, query = path.partition("?")
        assert (place, unquote(query)) == ("/api/v1/namespaces/team-a/pods", f"labelSelector={name}")
        assert "&" not in query


def test_nothing_else_builds_a_path() -> None:
    root = Path(next(iter(dynalign_operator.__path__)))
    files = [path for path in root.rglob("*.py") if path.name != "paths.py"]
    assert len(files) > 50
    for path in files:
        text = path.read_text()
        if path == root / "notifying/message.py":  # the source of a CloudEvent is the run's path, which nobody requests
            text = text.replace('"/apis/{API_VERSION}/namespaces/', "")
        own = r"\bnamespaces/|\"/?apis/|ApiPath\("
        if path.relative_to(root).parts[0] not in (
            "notifying",
            "ui",
        ):  # these have addresses of others to read and serve
            own += r"|\"/?api/|\burllib.parse\b"
        assert not re.search(own, text), f"{path} builds a path of its own"
