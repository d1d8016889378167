"""What a run needs of the cluster that up.sh gives: a shared volume, restricted pods, names. Needs a KUBECONFIG."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cluster import CACHE
from support.cluster_runs import a_pod

HERE = Path(__file__).parent
IMAGE = os.environ.get("DYNALIGN_TEST_IMAGE", "localhost/debian-python:test")
KUBECTL = str(CACHE / "bin/kubectl") if (CACHE / "bin/kubectl").exists() else "kubectl"

pytestmark = pytest.mark.cluster


def kubectl(*arguments: str, manifest: object = None) -> str:
    done = subprocess.run(
        [KUBECTL, *arguments],
        input=json.dumps(manifest) if manifest else None,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace that enforces Pod Security `restricted`, gone afterwards with all that is in it."""
    name = f"node-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl(
        "create",
        "-f-",
        manifest={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
    )
    yield name
    kubectl("delete", "namespace", name, "--timeout=120s")


def a_claim(name: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Gi"}}},
    }


def run_to_success(namespace: str, pod: dict[str, object], name: str) -> str:
    kubectl("create", "-n", namespace, "-f-", manifest=pod)
    kubectl("wait", "-n", namespace, f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
    return kubectl("logs", "-n", namespace, name)


def test_two_restricted_pods_share_a_claim_that_names_no_class(namespace: str) -> None:
    kubectl("create", "-n", namespace, "-f-", manifest=a_claim("run"))
    write = ["sh", "-c", "mkdir /volume/run && id -u > /volume/run/uid"]
    writer = a_pod("writer", write, IMAGE, "run", read_only=False)
    run_to_success(namespace, writer, "writer")
    reader = a_pod("reader", ["cat", "/volume/run/uid"], IMAGE, "run")
    assert run_to_success(namespace, reader, "reader") == "1000"


def test_the_root_file_system_cannot_be_written(namespace: str) -> None:
    command = ["sh", "-c", "touch /written 2>/dev/null || echo refused"]
    assert run_to_success(namespace, a_pod("pod", command, IMAGE), "pod") == "refused"


def test_services_are_found_by_name(namespace: str) -> None:
    look_up = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"
    address = kubectl("get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}")
    assert run_to_success(namespace, a_pod("pod", ["python3", "-c", look_up], IMAGE), "pod") == address


def test_a_kubeconfig_that_leads_nowhere_is_refused_and_nothing_starts(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "bin").mkdir(parents=True)
    (cache / "bin/kubectl").symlink_to("/bin/false")
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none"), "DYNALIGN_TEST_CACHE": str(cache)}
    up = subprocess.run([HERE / "up.sh"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert up.returncode == 1
    assert up.stdout == ""
    assert "correct it, or unset it" in up.stderr
    assert [path.name for path in cache.iterdir()] == ["bin"]
