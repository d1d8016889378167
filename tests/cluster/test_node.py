"""What a run needs of the cluster that up.sh gives: a shared volume, restricted pods, names."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.cluster import Cluster, bring_up, own_namespace
from support.base_image import IMAGE, give_base_image
from support.cluster_place import ClusterPlace
from support.cluster_runs import a_pod
from support.kind_cluster import on_kind

HERE = Path(__file__).parent

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", params=["chosen", "kind"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """What up.sh gives, and kind's cluster where Docker can run it, with the image of these tests."""
    with nullcontext() if request.param == "chosen" else on_kind():
        found = bring_up()
        give_base_image()
        yield found


@pytest.fixture
def site(cluster: Cluster) -> Iterator["Place"]:
    """A namespace that enforces Pod Security `restricted`, gone afterwards with all that is in it."""
    with own_namespace(cluster, "node") as namespace:
        yield Place(cluster, namespace)


@dataclass(frozen=True)
class Place(ClusterPlace):
    """A namespace in which pods run to their end."""

    def run_to_success(self, pod: dict[str, object], name: str) -> str:
        self.kubectl("create", "-f-", manifest=pod)
        self.kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
        return self.kubectl("logs", name)


def a_claim(name: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Gi"}}},
    }


def test_two_restricted_pods_share_a_claim_that_names_no_class(site: Place) -> None:
    site.kubectl("create", "-f-", manifest=a_claim("run"))
    write = ["sh", "-c", "mkdir /volume/run && id -u > /volume/run/uid"]
    writer = a_pod("writer", write, IMAGE, "run", read_only=False)
    site.run_to_success(writer, "writer")
    reader = a_pod("reader", ["cat", "/volume/run/uid"], IMAGE, "run")
    assert site.run_to_success(reader, "reader") == "1000"


def test_who_brings_a_cluster_up_that_runs_changes_no_file_that_others_read(cluster: Cluster) -> None:
    state = Path(cluster.kubeconfig).parent
    read = [path for folder in (state, state / "conf", state / "cni") for path in folder.glob("*.*") if path.is_file()]
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in read}
    assert bring_up() == cluster
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in read} == before


def test_the_root_file_system_cannot_be_written(site: Place) -> None:
    command = ["sh", "-c", "touch /written 2>/dev/null || echo refused"]
    assert site.run_to_success(a_pod("pod", command, IMAGE), "pod") == "refused"


def test_services_are_found_by_name(site: Place) -> None:
    look_up = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"
    address = site.cluster.kubectl(
        "get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}"
    ).strip()
    assert site.run_to_success(a_pod("pod", ["python3", "-c", look_up], IMAGE), "pod") == address


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
