"""Whose cluster is touched, and how: the scripts of tests/cluster with a `docker` and a `kind` that only remember.

One name, `dynalign`, may belong to a cluster that up.sh made or to one that somebody else made.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "cluster"

DOCKER = r"""#!/bin/bash
cd "$FAKE"
echo "docker $*" >> calls
case "$*" in
  info*) echo fake ;;
  "image inspect"*) exit 0 ;;
  "inspect -f {{.State.Running}}"*) [ -f state ] && echo "$(cat state)" || exit 1 ;;
  "inspect -f {{.Id}}"*) [ -f id ] && cat id || exit 1 ;;
  inspect*) [ -f id ] ;;
  start*) echo true > state ;;
  stop*) echo false > state ;;
  *"get configmap"*) echo '{"sharedFileSystemPath": "/var/local-path-provisioner"}' ;;
esac
"""
KIND = r"""#!/bin/bash
cd "$FAKE"
echo "kind $*" >> calls
case "$*" in
  "create cluster"*) sleep 0.3; echo true > state; echo made-by-up > id; touch "$KUBECONFIG_WRITTEN" ;;
  "delete cluster"*) rm -f state id ;;
  "get nodes"*) echo dynalign-control-plane ;;
esac
"""


@dataclass(frozen=True)
class Host:
    """A machine with Docker and kind, as far as the scripts can see."""

    root: Path

    @property
    def kubeconfig(self) -> Path:
        return self.root / "cache/kind/dynalign.kubeconfig"

    def has_cluster(self, container: str, *, running: bool = True) -> None:
        """Let there be a cluster of the name, whose node is this container."""
        (self.root / "fake/id").write_text(f"{container}\n")
        (self.root / "fake/state").write_text(f"{str(running).lower()}\n")

    @property
    def is_there(self) -> bool:
        return (self.root / "fake/id").exists()

    @property
    def is_running(self) -> bool:
        return (self.root / "fake/state").read_text().strip() == "true"

    def calls(self, beginning: str) -> list[str]:
        """Calls that begin so."""
        log = self.root / "fake/calls"
        return [c for c in (log.read_text().splitlines() if log.exists() else []) if c.startswith(beginning)]

    def start(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.root),
            "FAKE": str(self.root / "fake"),
            "KUBECONFIG_WRITTEN": str(self.kubeconfig),
            "DYNALIGN_TEST_CACHE": str(self.root / "cache"),
            "DYNALIGN_TEST_CLUSTER": "kind",
            **{f"DYNALIGN_TEST_{name}_IMAGE": "a:b" for name in ("OPERATOR", "TRAINER", "SCRIPTED_STAGE")},
            **variables,
        }
        command = [str(SCRIPTS / script), *map(str, arguments)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.root
        )

    def run(self, script: str, *arguments: str, **variables: str) -> str:
        """What it prints; it has to succeed."""
        with self.start(script, *arguments, **variables) as process:
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return output


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for name, text in (("docker", DOCKER), ("kind", KIND)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "fake").mkdir()
    return Host(tmp_path)


def test_it_is_made_once_and_selected(host: Host) -> None:
    for _ in range(2):
        assert host.run("up.sh") == f"export KUBECONFIG={host.kubeconfig}\n"
    assert len(host.calls("kind create cluster --name dynalign")) == 1


def test_callers_side_by_side_make_one(host: Host) -> None:
    callers = [host.start("up.sh") for _ in range(3)]
    outputs = {caller.communicate(timeout=60)[0] for caller in callers}
    assert outputs == {f"export KUBECONFIG={host.kubeconfig}\n"}
    assert len(host.calls("kind create cluster")) == 1


def test_down_stops_what_up_made_and_up_starts_it_again(host: Host) -> None:
    host.run("up.sh")
    host.run("down.sh")
    assert host.is_there
    assert not host.is_running
    host.run("up.sh")
    assert host.is_running
    assert len(host.calls("kind create cluster")) == 1


def test_purge_deletes_what_up_made(host: Host) -> None:
    host.run("up.sh")
    host.run("down.sh", "--purge")
    assert not host.is_there
    assert not host.kubeconfig.exists()


@pytest.mark.parametrize("arguments", [(), ("--purge",), ("kind",), ("--purge", "kind")])
@pytest.mark.parametrize("was_ours", [False, True])
def test_a_cluster_that_somebody_else_made_is_used_and_left_alone(
    host: Host, arguments: tuple[str, ...], was_ours: bool
) -> None:
    if was_ours:  # ours was deleted by hand, and another one made under its name
        host.run("up.sh")
    host.has_cluster("made-by-somebody")
    host.run("up.sh")
    host.run("down.sh", *arguments)
    assert host.is_running
    assert host.calls("kind delete") == host.calls("docker stop") == []


def test_a_lost_kubeconfig_is_exported_again(host: Host) -> None:
    host.has_cluster("made-by-somebody")
    host.run("up.sh")
    assert host.calls("kind export kubeconfig") == [
        f"kind export kubeconfig --name dynalign --kubeconfig {host.kubeconfig}"
    ]


@pytest.mark.parametrize(
    "script", [("up.sh",), ("down.sh",), ("down.sh", "--purge"), ("around.sh", "true"), ("prepare.sh",)]
)
def test_with_a_kubeconfig_of_ones_own_no_cluster_of_kind_is_touched(host: Host, script: tuple[str, ...]) -> None:
    host.has_cluster("made-by-somebody")
    (host.root / "bin/kubectl").symlink_to("/bin/true")
    host.run(*script, KUBECONFIG=str(host.root / "own"))
    assert host.calls("kind") == host.calls("docker start") == host.calls("docker stop") == []


@pytest.mark.parametrize("was_running", [False, True])
def test_what_ran_before_the_tests_runs_after_them(host: Host, was_running: bool) -> None:
    host.run("up.sh")
    if not was_running:
        host.run("down.sh")
    host.run("around.sh", str(SCRIPTS / "up.sh"))
    assert host.is_running is was_running


def test_three_nodes_are_a_cluster_of_their_own(host: Host) -> None:
    said = host.run("up.sh", DYNALIGN_TEST_KIND_NODES="3")
    assert said == f"export KUBECONFIG={host.root / 'cache/kind/dynalign-3.kubeconfig'}\n"
    assert len(host.calls("kind create cluster --name dynalign-3")) == 1


def test_an_unknown_kind_of_cluster_is_refused(host: Host) -> None:
    with host.start("up.sh", DYNALIGN_TEST_CLUSTER="minikube") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "write kind or native" in errors
    assert host.calls("kind") == []
