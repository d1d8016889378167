"""Watches whose events carry the time at which they arrived."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any, Final

import urllib3
from kubernetes import client

from benchmarks.job_events import Arrival
from lab.cluster import Cluster, LabError
from lab.cluster_reads import connect

_SECONDS: Final = 24 * 3600
"""How long the API server may keep a watch open."""

Feed = Queue[Arrival | Exception]


def follow_jobs(cluster: Cluster, namespace: str, selector: str, feed: Feed) -> None:
    """Put the events of Jobs into the feed from now on, until the process ends."""
    _follow(client.BatchV1Api(connect(cluster)).list_namespaced_job, namespace, selector, feed)


def follow_pods(cluster: Cluster, namespace: str, selector: str, feed: Feed) -> None:
    """Put the events of pods into the feed from now on, until the process ends."""
    _follow(client.CoreV1Api(connect(cluster)).list_namespaced_pod, namespace, selector, feed)


def _follow(watch: Callable[..., Any], namespace: str, selector: str, feed: Feed) -> None:
    """The watch stands when this returns; a thread of its own reads it."""
    answer = watch(namespace, label_selector=selector, watch=True, timeout_seconds=_SECONDS, _preload_content=False)
    if answer.status != 200:
        raise LabError(f"the API server refused a watch in namespace {namespace}: {answer.data.decode()}")
    threading.Thread(target=_read, args=(answer, feed), daemon=True).start()


def _read(answer: urllib3.BaseHTTPResponse, feed: Feed) -> None:
    try:
        for at, line in _lines(answer):
            event = json.loads(line)
            feed.put(Arrival(at, event["type"], event["object"]))
    except urllib3.exceptions.HTTPError as error:
        feed.put(LabError(f"a watch broke off: {error}"))
    else:
        feed.put(LabError("the API server ended a watch"))


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[tuple[float, bytes]]:
    """Each line with the time (`time.monotonic`) at which its last byte was there, before it is parsed."""
    rest = b""
    for chunk in answer.stream(amt=None):
        at = time.monotonic()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield at, line
