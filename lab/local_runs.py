"""`dynalign run` as a user types it, on the test-bed's model: run files, processes, and what they leave behind."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dynalign_operator.api.status import AlignmentRunStatus
from lab.testbed import Testbed

COMMAND = (sys.executable, "-c", "from dynalign_operator.cli.main import main; main()")

SPEC: Mapping[str, Any] = {
    "iterations": 3,
    "engine": {"maxLength": 512},
    "prompts": {"perIteration": 16, "heldOut": 24, "maxTokens": 96, "minCharacters": 10, "dedup": {"threshold": 1.0}},
    "generation": {"candidates": 8, "maxTokens": 96},
    "judging": {"canaries": {"prompts": 4}},
    "training": {
        "learningRate": 3e-3,
        "lora": {"rank": 8, "alpha": 16},
        "promptsPerStep": 4,
        "gradientCheckpointing": False,
    },
    "evaluation": {"winRate": {"method": "Pointwise", "tieMargin": 0.02}},
    "rollout": "Separate",
}


@dataclass(frozen=True)
class LocalRun:
    """A run file and its working folder."""

    file: Path
    workdir: Path
    settings: tuple[str, ...] = ()
    """FIELD=VALUE, which `--set` sets in place of the file's."""

    def start(self, **options: Any) -> subprocess.Popen[str]:
        """Start `dynalign run --plain`."""
        settings = [part for setting in self.settings for part in ("--set", setting)]
        return subprocess.Popen(
            [*COMMAND, "run", str(self.file), "--workdir", str(self.workdir), "--plain", *settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def finish(self, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `dynalign run --plain` to its end."""
        with self.start(**options) as process:
            output, errors = process.communicate(timeout=1100)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def until(self, process: subprocess.Popen[str], words: str) -> None:
        """Read the process's output until a line holds these words."""
        if process.stdout is None:
            raise ValueError("the process was started without a pipe for its output")
        seen = []
        for line in process.stdout:
            seen.append(line)
            if words in line:
                return
        raise AssertionError(f"{words!r} never came; the output was\n{''.join(seen)}\n{process.communicate()[1]}")

    @property
    def status(self) -> AlignmentRunStatus:
        """The status that the run has stored."""
        return AlignmentRunStatus.model_validate(json.loads((self.workdir / "run.json").read_text())["status"])

    def logs(self) -> str:
        """All logs, for the message of a failed assertion."""
        paths: Iterable[Path] = sorted((self.workdir / "logs").glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in paths)


def write_run(folder: Path, testbed: Testbed, changes: Mapping[str, Any] | None = None) -> LocalRun:
    """Write the run file of a test-bed run; `changes` replaces whole sections of the specification."""
    spec = {
        "model": {"uri": str(testbed.model)},
        "objective": {"configMapRef": {"name": "testbed"}},
        **SPEC,
        **(changes or {}),
    }
    objective = {"objective.yaml": testbed.objective.read_text()}
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "testbed"}, "data": objective},
        {
            "apiVersion": "dynalign.io/v1alpha1",
            "kind": "AlignmentRun",
            "metadata": {"name": "testbed-run"},
            "spec": spec,
        },
    ]
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return LocalRun(file=file, workdir=folder / "run")
