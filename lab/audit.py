"""The audit log of an API server: who asked for what, and whether it was granted."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Right:
    """A verb on a resource: what RBAC grants."""

    group: str
    """Empty for the core group."""
    resource: str
    """With its subresource: `pods/proxy`."""
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.group or 'core'}/{self.resource}"


@dataclass(frozen=True)
class Request:
    """A request for a resource, as it was answered."""

    right: Right
    """What it takes."""
    uri: str
    status: int
    """HTTP status."""


def read_requests(log: Path, user: str) -> list[Request]:
    """A user's requests in an audit log, in their order; those that are for no resource (discovery) are left out."""
    if not log.exists():
        return []
    lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    events = (json.loads(line) for line in lines)
    return [
        Request(_right(event), event["requestURI"], event["responseStatus"]["code"])
        for event in events
        if event["user"]["username"] == user and event.get("objectRef", {}).get("resource")
    ]


def _right(event: dict[str, object]) -> Right:
    reference = event["objectRef"]
    if not isinstance(reference, dict):
        raise TypeError(f"an audit event without an objectRef: {event}")
    resource = "/".join(part for part in (reference["resource"], reference.get("subresource")) if part)
    return Right(reference.get("apiGroup", ""), resource, str(event["verb"]))
