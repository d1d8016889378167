"""The cluster of tests/cluster as tests and benchmarks use it: images, namespaces, an operator in a namespace."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
_SCRIPTS: Final = ROOT / "tests" / "cluster"
CACHE: Final = Path(
    os.environ.get("DYNALIGN_TEST_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynalign-tests"
)
_CRD: Final = "alignmentruns.dynalign.io"
_NAMESPACES_VARIABLE: Final = "DYNALIGN_NAMESPACES"
RELEASE: Final = "bench"


class LabError(Exception):
    """A cluster, image or server cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Image:
    """An image that the cluster has."""

    repository: str
    tag: str
    is_loaded: bool = True
    """It was put into the cluster by hand and no registry has it."""

    @property
    def reference(self) -> str:
        """As a pod names it."""
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True)
class Cluster:
    """A running cluster. Its methods raise LabError with what the command said."""

    kubeconfig: str

    def kubectl(self, *arguments: str, manifest: object = None) -> str:
        """Run kubectl, with a manifest as its standard input; returns what it prints."""
        return self._run("kubectl", *arguments, text=None if manifest is None else json.dumps(manifest))

    def command(self, *arguments: str) -> list[str]:
        """The command line of kubectl with these arguments, for a process that goes on."""
        return [shutil.which("kubectl", path=_search_path()) or "kubectl", "--kubeconfig", self.kubeconfig, *arguments]

    def helm(self, *arguments: str) -> str:
        """Run helm; returns what it prints."""
        return self._run("helm", *arguments)

    def pipe(self, data: bytes, *command: str) -> None:
        """Run kubectl or helm with these bytes as its standard input."""
        self._call(command, data)

    def _run(self, *command: str, text: str | None = None) -> str:
        return self._call(command, None if text is None else text.encode())

    def _call(self, command: Sequence[str], data: bytes | None) -> str:
        environment = {**os.environ, "KUBECONFIG": self.kubeconfig, "PATH": _search_path()}
        # A session of its own: a terminal's Ctrl-C goes to every process, and kubectl ends at it even if it is ignored.
        done = subprocess.run(
            command, input=data, capture_output=True, check=False, env=environment, start_new_session=True
        )
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
            raise LabError(f"`{' '.join(command)}` failed: {said}")
        return done.stdout.decode(errors="replace")


def _search_path() -> str:
    """What tests/cluster/build.sh made comes first."""
    return f"{CACHE / 'bin'}{os.pathsep}{os.environ['PATH']}"


def bring_up() -> Cluster:
    """The cluster of your KUBECONFIG, kind, or the native node (tests/cluster/up.sh). Raises LabError."""
    said = _script("up.sh").strip()
    return Cluster(said.removeprefix("export KUBECONFIG="))


@functools.cache
def built_tools() -> Path:
    """The folder with kubectl, helm, kube-apiserver and etcd; built the first time (minutes). Raises LabError."""
    # Debian's prometheus is installed with them.
    _script("build.sh")
    return CACHE / "bin"


def kwok_stages() -> str:
    """The folder of the stages that come with KWOK, which is built the first time. Raises LabError."""
    return _script("kwok.sh").strip()


def give_image(name: str) -> Image:
    """Build this tree's `operator`, `trainer` (for CPUs) or `scripted-stage` for the cluster. Raises LabError.

    Where `images.sh give` cannot load or push, DYNALIGN_TEST_OPERATOR_IMAGE, DYNALIGN_TEST_TRAINER_IMAGE and
    DYNALIGN_TEST_SCRIPTED_STAGE_IMAGE (REPOSITORY:TAG) name images that the cluster can pull.
    """
    given = os.environ.get(f"DYNALIGN_TEST_{name.upper().replace('-', '_')}_IMAGE")
    repository, _, tag = (given or _script("images.sh", "give", name).strip()).rpartition(":")
    if not repository:
        raise LabError(f"the image {given} has no tag: name it as REPOSITORY:TAG")
    return Image(repository, tag, is_loaded=repository.startswith("localhost/"))


@contextmanager
def own_namespace(cluster: Cluster, prefix: str, *, awaits_end: bool = True) -> Iterator[str]:
    """A namespace that enforces Pod Security `restricted`. It goes with all that is in it, interrupted or not."""
    name = f"{prefix}-{uuid.uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    try:
        cluster.kubectl("create", "-f-", manifest=manifest)
        yield name
    finally:
        with _undisturbed():
            say(f"removing namespace {name}")
            waiting = f"--wait={str(awaits_end).lower()}"
            cluster.kubectl("delete", "namespace", name, "--ignore-not-found", waiting, "--timeout=180s")


def install_operator(
    cluster: Cluster,
    namespace: str,
    operator: Image,
    trainer: Image,
    *,
    release: str = RELEASE,
    more: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Install the chart for this namespace alone, with `more` values, and wait until the operator is ready.

    Raises LabError.

    The CustomResourceDefinition comes with the chart where the cluster has none, and stays.
    """
    refuse_rivals(cluster.kubectl("get", "deployments", "-A", "-l", "app.kubernetes.io/name=dynalign", "-o", "json"))
    has_crd = bool(cluster.kubectl("get", "crd", _CRD, "--ignore-not-found", "-o", "name"))
    values = {
        "image.repository": operator.repository,
        "image.tag": operator.tag,
        "image.pullPolicy": "Never" if operator.is_loaded else "IfNotPresent",
        "trainer.image.repository": trainer.repository,
        "trainer.image.tag": trainer.tag,
        "namespaces": f"{{{namespace}}}",
        "crds.install": str(not has_crd).lower(),
        **more,
    }
    settings = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    chart = str(ROOT / "charts" / "dynalign")
    cluster.helm("install", release, chart, "--namespace", namespace, "--wait", "--timeout", "180s", *settings)


def refuse_rivals(deployments: str) -> None:
    """Raise LabError where one of these Deployments (JSON) is an operator of all namespaces: two would race."""
    for deployment in json.loads(deployments)["items"]:
        if deployment["spec"].get("replicas", 1) and _runs_everything(deployment):
            place = deployment["metadata"]
            raise LabError(
                f"the operator {place['name']} in namespace {place['namespace']} runs the AlignmentRuns of all "
                "namespaces, the benchmark's too. Stop it for the time being: "
                f"kubectl -n {place['namespace']} scale deployment {place['name']} --replicas 0"
            )


def say(text: str) -> None:
    """Tell the person who waits."""
    sys.stderr.write(f"{text}\n")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Neither Ctrl-C nor SIGTERM ends this process."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _runs_everything(deployment: Mapping[str, Any]) -> bool:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    variables = (variable for container in containers for variable in container.get("env", ()))
    return any(variable["name"] == _NAMESPACES_VARIABLE and not variable.get("value") for variable in variables)


def _script(name: str, *arguments: str) -> str:
    """Run a script of tests/cluster; what it says on standard error is shown."""
    done = subprocess.run([str(_SCRIPTS / name), *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"tests/cluster/{name} {' '.join(arguments)} failed; what it said stands above.")
    return done.stdout
