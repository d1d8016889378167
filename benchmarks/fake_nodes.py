"""Nodes that are not there: KWOK plays their kubelets, and every pod ends well after a while."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from dynalign_contract.metrics import EvaluateMetrics, JudgeMetrics, TrainMetrics
from dynalign_contract.result import ArtifactRef, Metric, Outcome, StageResult
from lab.api_server import ApiServer
from lab.cluster import CACHE, LabError, kwok_stages
from lab.processes import free_port, running

_METRICS: Final = (
    *(JudgeMetrics.reward, JudgeMetrics.reward_std, JudgeMetrics.canary_auc, JudgeMetrics.zero_variance_share),
    *(TrainMetrics.kl, TrainMetrics.tokens_per_second, TrainMetrics.start_seconds),
    *(*EvaluateMetrics.win_rate.parts, EvaluateMetrics.preference),
    *(EvaluateMetrics.capability.value, EvaluateMetrics.capability_delta.value),
)
"""Metrics that every fake stage reports, whichever it is."""


def fake_result() -> StageResult:
    """What every fake pod says at its end."""
    artifact = ArtifactRef(path="iterations/000/fake", digest="sha256:" + "0" * 64, bytes=1, rows=1)
    values = {metric.name: 0.512345678 for metric in _METRICS} | {EvaluateMetrics.regressed.name: 0.0}
    metrics = tuple(Metric(name=name, value=value) for name, value in values.items())
    return StageResult(outcome=Outcome.SUCCEEDED, artifact=artifact, metrics=metrics)


@contextmanager
def fake_nodes(server: ApiServer, count: int, seconds: float) -> Iterator[None]:
    """A scheduler, KWOK and so many nodes, whose pods run for about so many seconds each."""
    folder, kubeconfig = server.folder, str(server.kubeconfig)
    stages = folder / "stages.yaml"
    stages.write_text(yaml.safe_dump(_pod_complete(seconds)))
    shipped = Path(kwok_stages())
    files = (
        stages,
        shipped / "node/fast/node-initialize.yaml",
        shipped / "pod/fast/pod-ready.yaml",
        shipped / "pod/fast/pod-delete.yaml",
    )
    scheduler = [str(CACHE / "bin" / "kube-scheduler"), f"--kubeconfig={kubeconfig}", "--leader-elect=false"]
    scheduler += ["--kube-api-qps=500", "--kube-api-burst=1000", f"--secure-port={free_port()}", "--v=0"]
    kwok = [str(CACHE / "bin" / "kwok"), "--kubeconfig", kubeconfig]
    kwok += ["--manage-nodes-with-annotation-selector", "kwok.x-k8s.io/node=fake", "--cidr", "10.125.0.1/16"]
    kwok += [part for file in files for part in ("--config", str(file))]
    kwok += ["--node-lease-duration-seconds", "40", "--server-address", f"127.0.0.1:{free_port()}", "--v", "WARN"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(folder, scheduler, "kube-scheduler"))
        stack.enter_context(running(folder, kwok, "kwok"))
        applied = server.apply(*(_node(index) for index in range(count)))
        if applied.returncode != 0:
            raise LabError(f"the fake nodes could not be made: {applied.stderr}")
        _await_nodes(server)
        yield


def _await_nodes(server: ApiServer) -> None:
    ready = server.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=50s")
    if ready.returncode != 0:
        raise LabError(f"the fake nodes did not become ready: {ready.stderr}")
    # Put there at their creation; the controller that takes it away does not run here.
    freed = server.kubectl("taint", "nodes", "--all", "node.kubernetes.io/not-ready:NoSchedule-")
    if freed.returncode != 0:
        raise LabError(f"the fake nodes keep their taint: {freed.stderr}")


def _node(index: int) -> dict[str, Any]:
    name = f"fake-{index:03d}"
    room = {"cpu": "64", "memory": "512Gi", "pods": "250", "nvidia.com/gpu": "64"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "type": "kwok"},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "status": {"allocatable": room, "capacity": room},
    }


def _pod_complete(seconds: float) -> dict[str, Any]:
    """KWOK's stage of a pod that has run long enough."""
    message = yaml.dump(fake_result().encode().decode(), width=10**6).strip()
    terminated = (
        "{{ $now := Now }}\ncontainerStatuses:\n{{ range .spec.containers }}\n"
        "- image: {{ .image | Quote }}\n  name: {{ .name | Quote }}\n  ready: false\n  restartCount: 0\n  state:\n"
        f"    terminated:\n      exitCode: 0\n      reason: Completed\n      message: {message}\n"
        "      startedAt: {{ $now | Quote }}\n      finishedAt: {{ $now | Quote }}\n{{ end }}\nphase: Succeeded\n"
    )
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": "pod-complete"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {
                "matchExpressions": [
                    {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
                    {"key": ".status.phase", "operator": "In", "values": ["Running"]},
                ]
            },
            "delay": {
                "durationMilliseconds": int(750 * seconds),
                "jitterDurationMilliseconds": int(1250 * seconds),
            },
            "next": {"statusTemplate": terminated},
        },
    }
