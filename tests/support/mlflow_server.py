"""A real MLflow server on loopback, from an environment of its own: its packages exclude those of the stages."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from dynalign_operator.clusters.local.processes import free_port
from support.installations import ROOT, UV

_ENVIRONMENT = ROOT / "build" / "mlflow"
PACKAGE = "mlflow==3.17.2"
_PATIENCE = 180.0


def _program() -> Path:
    program = _ENVIRONMENT / "bin" / "mlflow"
    if not program.exists():
        subprocess.run([str(UV), "venv", "-q", "--clear", "--python", sys.executable, str(_ENVIRONMENT)], check=True)
        python = str(_ENVIRONMENT / "bin" / "python")
        subprocess.run([str(UV), "pip", "install", "-q", "--python", python, PACKAGE], check=True)
    return program


class MlflowRecord:
    """What a server has stored."""

    def __init__(self, url: str) -> None:
        self.url = url

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """Every run of an experiment, oldest first."""
        found = self._get("experiments/get-by-name", experiment_name=experiment)["experiment"]
        body = {"experiment_ids": [found["experiment_id"]], "order_by": ["attributes.start_time ASC"]}
        answer = httpx.post(f"{self.url}/api/2.0/mlflow/runs/search", json=body, trust_env=False)
        answer.raise_for_status()
        return list(answer.json().get("runs", []))

    def history(self, run: str, metric: str) -> list[tuple[int, float]]:
        """Step and value of every time that a metric was logged."""
        found = self._get("metrics/get-history", run_id=run, metric_key=metric)
        return [(int(entry.get("step", 0)), float(entry["value"])) for entry in found.get("metrics", [])]

    def _get(self, path: str, **fields: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/api/2.0/mlflow/{path}", params=fields, trust_env=False)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


class MlflowServer(MlflowRecord):
    """Starts and stops; what it has stored outlives that."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")

    @contextmanager
    def running(self, *options: str) -> Iterator["MlflowServer"]:
        """The server while it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(str(_program()), "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self.folder}/store.db"),
            *("--default-artifact-root", str(self.folder / "artifacts")),
            *options,
        ]
        # Its workers for jobs of its own take a tenth of a core, and outlive a server that is killed.
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        try:
            self._await_answer(process)
            yield self
        finally:
            process.terminate()
            process.wait(timeout=60)

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            assert process.poll() is None, (self.folder / "log").read_text()
            try:
                if httpx.get(f"{self.url}/health", trust_env=False).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.2)  # between two questions whether it answers
