"""Objects of a cluster, read over a connection that stays open: starting kubectl for every look takes too much CPU."""

import functools
import json
from collections.abc import Callable
from typing import Any, Final

from kubernetes import client, config

from lab.cluster import Cluster, LabError

Object = dict[str, Any]

_SECONDS: Final = 30.0
"""How long an answer may take."""
_RUNS: Final = ("dynalign.io", "v1alpha1")


@functools.cache
def connect(cluster: Cluster) -> client.ApiClient:
    """The client of a cluster, which all threads share."""
    return config.new_client_from_config(config_file=cluster.kubeconfig)


def read_run(cluster: Cluster, namespace: str, name: str) -> Object:
    """An AlignmentRun. Raises LabError where there is none."""
    return _read(
        client.CustomObjectsApi(connect(cluster)).get_namespaced_custom_object, *_RUNS, namespace, "alignmentruns", name
    )


def list_jobs(cluster: Cluster, namespace: str, selector: str = "") -> list[Object]:
    """The Jobs with these labels."""
    return _list(client.BatchV1Api(connect(cluster)).list_namespaced_job, namespace, selector)


def list_pods(cluster: Cluster, namespace: str, selector: str = "") -> list[Object]:
    """The pods with these labels."""
    return _list(client.CoreV1Api(connect(cluster)).list_namespaced_pod, namespace, selector)


def list_events(cluster: Cluster, namespace: str) -> list[Object]:
    """All events of a namespace."""
    return _list(client.CoreV1Api(connect(cluster)).list_namespaced_event, namespace, "")


def list_nodes(cluster: Cluster) -> list[Object]:
    """All nodes."""
    found: list[Object] = _read(client.CoreV1Api(connect(cluster)).list_node)["items"]
    return found


def _list(call: Callable[..., Any], namespace: str, selector: str) -> list[Object]:
    found: list[Object] = _read(call, namespace, label_selector=selector)["items"]
    return found


def _read(call: Callable[..., Any], *arguments: str, **query: str) -> Object:
    """What the API server answers, as it writes it."""
    try:
        answer = call(*arguments, **query, _preload_content=False, _request_timeout=_SECONDS)
    except client.ApiException as error:
        raise LabError(f"the API server answered {error.status}: {error.body}") from error
    found: Object = json.loads(answer.data)
    return found
