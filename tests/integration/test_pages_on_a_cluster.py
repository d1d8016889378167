"""Commands of the pages are obeyed with a real API server, the operator and the chart; pods succeed as soon as they are made."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from dynalign_operator.clusters.kubernetes.api import open_kube_api
from dynalign_operator.manifests.labels import read_job_labels
from lab.api_server import ApiServer, start_api_server
from lab.cluster import CACHE
from support.page_marks import Place, PreparedRun, Session, sessions
from support.page_shell import PYTHON, add_gate, check_session, obey, prepare_folder
from support.pages import ROOT
from support.player import Player, start_operator, well
from support.warm_cli import warm_cli

pytestmark = pytest.mark.cluster

SESSIONS = sessions(Place.CLUSTER)
NAMESPACES = ("default", "ml")
CONTEXTS = ("x", "prod")
WAIT = "--timeout=60s"


def fare(pod: dict[str, Any]) -> tuple[int, str] | str:
    """Pods of stages succeed at once, others go on running."""
    return well(pod) if read_job_labels(pod["metadata"].get("labels", {})) else "127.0.0.9"


@dataclass
class Kubelets:
    """Lets every pod of the namespaces succeed, in a thread of its own."""

    ended: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        asyncio.run(self._play())

    async def _play(self) -> None:
        async with open_kube_api() as api:
            players = [Player(api, fare, namespace) for namespace in NAMESPACES]
            while not self.ended.is_set():
                for player in players:
                    await player.play()
                await asyncio.sleep(0.2)  # between two looks at the pods


@contextmanager
def kubelets(server: ApiServer) -> Iterator[None]:
    with patch.dict(os.environ, KUBECONFIG=str(server.kubeconfig)):
        playing = Kubelets()
        thread = threading.Thread(target=playing.work)
        thread.start()
        try:
            yield
        finally:
            playing.ended.set()
            thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A cluster with the chart's release, whose operator is a process, and nobody's runs."""
    with start_api_server(tmp_path_factory.mktemp("api-server") / "s") as started:
        config = yaml.safe_load(started.kubeconfig.read_text())
        config["contexts"] += [{**config["contexts"][0], "name": name} for name in CONTEXTS[1:]]
        started.kubeconfig.write_text(yaml.safe_dump(config))
        crd = "crd/alignmentruns.dynalign.io"  # becomes the chart's
        kubectl(started, "label", crd, "app.kubernetes.io/managed-by=Helm")
        owner = ("meta.helm.sh/release-name=dynalign", "meta.helm.sh/release-namespace=dynalign-system")
        kubectl(started, "annotate", crd, *owner)
        install = ["install", "dynalign", "charts/dynalign", "-n", "dynalign-system", "--create-namespace"]
        told = run_tool(started, "helm", *install)
        assert told[0] == 0, told[1]
        with start_operator(started), kubelets(started):
            yield started


def run_tool(server: ApiServer, name: str, *arguments: str) -> tuple[int, str]:
    import subprocess

    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
    command = [str(CACHE / "bin" / name), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def kubectl(server: ApiServer, *arguments: str) -> None:
    done = server.kubectl(*arguments)
    assert done.returncode == 0, done.stderr


def prepare(server: ApiServer, folder: Path, run: PreparedRun) -> None:
    """Apply a run, and wait until it has ended or awaits an approval."""
    if run.namespace != "default":
        server.kubectl("create", "namespace", run.namespace)
    if run.waits:
        add_gate(folder / run.name)
    kubectl(server, "apply", "-n", run.namespace, "-f", str(folder / run.name))
    documents: list[Any] = [*yaml.safe_load_all((folder / run.name).read_text())]
    (document,) = (thing for thing in documents if thing["kind"] == "AlignmentRun")
    until = "jsonpath={.status.awaitedApproval.gate}" if run.waits else "condition=Completed"
    kubectl(server, "wait", "-n", run.namespace, f"ar/{document['metadata']['name']}", f"--for={until}", WAIT)


def clear(server: ApiServer) -> None:
    """Remove what a page has made."""
    kubectl(server, "delete", "alignmentruns,secrets,pods", "--all", "-n", "default", "--wait=false")
    kubectl(server, "delete", "secret", "registry", "-n", "dynalign-system", "--ignore-not-found")
    kubectl(server, "delete", "namespace", "ml", "research", "--ignore-not-found", WAIT)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with warm_cli(tmp_path_factory.mktemp("cli"), PYTHON) as path:
        yield path


@pytest.mark.parametrize("blocks", SESSIONS, ids=lambda blocks: str(blocks[0][0]))
def test_the_commands_of_a_page_succeed(server: ApiServer, cli: Path, blocks: Session, tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "folder")
    try:
        for _, mark in blocks:
            for run in mark.runs:
                prepare(server, folder, run)
        done = obey(blocks, folder, {"DOCS_CLI": str(cli), "KUBECONFIG": str(server.kubeconfig)})
    finally:
        clear(server)
    check_session(done, blocks)
