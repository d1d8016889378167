"""Ways to read a stage's `/metrics`: from the pod itself, or through the API server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

import aiohttp

from dynalign_contract.pod_paths import METRICS_PORT
from dynalign_contract.telemetry import MOST_BYTES
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.api import KubeApi
from dynalign_operator.clusters.kubernetes.bounded_read import PLAIN, read_bounded
from dynalign_operator.clusters.kubernetes.paths import PODS, object_path
from dynalign_operator.manifests.objects import KubernetesObject

_SECONDS: Final = 1.0
"""Timeout of an answer, body included."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=_SECONDS)

Read = Callable[[KubernetesObject], Awaitable[bytes]]
"""Reads a pod's /metrics; raises ClusterError, OSError, TimeoutError or aiohttp.ClientError."""


class ProgressSource(StrEnum):
    """How the operator reads a stage's /metrics."""

    POD_IP = "PodIP"
    API_PROXY = "ApiProxy"
    """Through the API server, for clusters in which the operator cannot reach pods."""
    OFF = "Off"


@asynccontextmanager
async def open_source(source: ProgressSource, api: KubeApi) -> AsyncIterator[Read]:
    """Yield the function that reads a pod's /metrics in this way."""
    if source is ProgressSource.API_PROXY:
        yield by_api_proxy(api)
        return
    async with aiohttp.ClientSession(trust_env=False) as session:
        yield by_pod_ip(session)


def by_pod_ip(session: aiohttp.ClientSession) -> Read:
    """Ask the pod itself: no redirect is followed, nothing is decompressed, and no more than is wanted is read."""

    async def read(pod: KubernetesObject) -> bytes:
        address = pod["status"].get("podIP")
        if not address:
            raise ClusterError("the pod has no address yet")
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{METRICS_PORT}/metrics"
        async with session.get(
            url, timeout=_TIMEOUT, headers=PLAIN, allow_redirects=False, auto_decompress=False
        ) as answer:
            return await read_bounded(answer, MOST_BYTES)

    return read


def by_api_proxy(api: KubeApi) -> Read:
    """Ask the API server to ask the pod, with the same limits."""

    async def read(pod: KubernetesObject) -> bytes:
        metadata = pod["metadata"]
        target = f"{metadata['name']}:{METRICS_PORT}"
        path = object_path(PODS, metadata["namespace"], target, "proxy", "metrics")
        return await api.read_raw(path, MOST_BYTES, seconds=_SECONDS)

    return read
