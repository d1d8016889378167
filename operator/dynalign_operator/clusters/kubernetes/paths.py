"""The only place that builds a path of the Kubernetes API. Every segment and every query value is quoted. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NewType
from urllib.parse import quote

from dynalign_operator.api.v1alpha1 import API_VERSION, PLURAL
from dynalign_operator.clusters.errors import ClusterError

ApiPath = NewType("ApiPath", str)
"""A path with its query, ready to be sent as it is. Made by the functions of this module alone."""

_NO_SEGMENTS: Final = frozenset({"", ".", ".."})
_NEVER_IN_A_SEGMENT: Final = re.compile(r"[/%\\\x00-\x1f\x7f]")
"""An API server splits a path after it has decoded it: a slash would lead elsewhere, quoted or not, and `%` could be
decoded twice. No Kubernetes object has a name with one of these (`IsValidPathSegmentName` of apimachinery)."""


class UnsafePathError(ClusterError):
    """A name cannot be a segment of a path; the message quotes it."""


@dataclass(frozen=True)
class Resource:
    """A kind of Kubernetes object, as its path names it."""

    api: str
    """Group and version: `apis/batch/v1`."""
    plural: str


RUNS: Final = Resource(f"apis/{API_VERSION}", PLURAL)
JOBS: Final = Resource("apis/batch/v1", "jobs")
PODS: Final = Resource("api/v1", "pods")
EVENTS: Final = Resource("api/v1", "events")
SELF_SUBJECT_REVIEWS: Final = Resource("apis/authentication.k8s.io/v1", "selfsubjectreviews")
CONFIG_MAPS: Final = Resource("api/v1", "configmaps")
SERVICES: Final = Resource("api/v1", "services")
NETWORK_POLICIES: Final = Resource("apis/networking.k8s.io/v1", "networkpolicies")
SECRETS: Final = Resource("api/v1", "secrets")
VOLUME_CLAIMS: Final = Resource("api/v1", "persistentvolumeclaims")


def collection_path(resource: Resource, namespace: str | None, query: Mapping[str, str | int] | None = None) -> ApiPath:
    """All objects of a kind, in one namespace or (None) in the whole cluster. Raises UnsafePathError."""
    place = () if namespace is None else ("namespaces", namespace)
    return _join(resource, (*place, resource.plural), query)


def object_path(
    resource: Resource,
    namespace: str,
    name: str,
    *subresource: str,
    query: Mapping[str, str | int] | None = None,
) -> ApiPath:
    """One object, or a subresource of it such as `status`. Raises UnsafePathError."""
    return _join(resource, ("namespaces", namespace, resource.plural, name, *subresource), query)


def _join(resource: Resource, segments: tuple[str, ...], query: Mapping[str, str | int] | None) -> ApiPath:
    path = "/".join(["", resource.api, *map(_quote_segment, segments)])
    values = "&".join(f"{quote(key, safe='')}={quote(str(value), safe='')}" for key, value in (query or {}).items())
    return ApiPath(f"{path}?{values}" if values else path)


def _quote_segment(segment: str) -> str:
    """One segment, percent-encoded, so that it stays one segment wherever it is decoded."""
    if segment in _NO_SEGMENTS or _NEVER_IN_A_SEGMENT.search(segment):
        raise UnsafePathError(f"{segment!r} is no name of a Kubernetes object, so no path leads to it.")
    try:
        return quote(segment, safe="")
    except UnicodeEncodeError as error:
        raise UnsafePathError(f"{segment!r} holds half a character, so no path leads to it.") from error
