"""Finished runs of the test-bed that tests of several files read: made once, by the worker that needs one first."""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from lab.local_runs import LocalRun, write_run
from lab.testbed import load_testbed

_PROMPTS: Final = {"perIteration": 4, "heldOut": 4, "maxTokens": 96, "minCharacters": 10, "dedup": {"threshold": 1.0}}

SHORT: Final[Mapping[str, Any]] = {
    "iterations": 1,
    "prompts": _PROMPTS,
    "generation": {"candidates": 4, "maxTokens": 48, "promptsPerPart": 1},
    "training": {
        "promptsPerStep": 1,
        "checkpointSteps": 1,
        "lora": {"rank": 8},
        "gradientCheckpointing": False,
    },
}
"""Fields of a run of one iteration, which leaves something after each prompt and each step."""

IN_SHARDS: Final[Mapping[str, Any]] = {
    "iterations": 2,
    "prompts": _PROMPTS,
    "generation": {"candidates": 4, "maxTokens": 32, "promptsPerPart": 2, "shards": 2},
    "training": {"learningRate": 1e-3, "promptsPerStep": 1, "lora": {"rank": 8}, "gradientCheckpointing": False},
}
"""Fields of a run of two iterations whose stages have two shards."""


@dataclass(frozen=True)
class FinishedRun:
    """A run at its end, for reading: what a test changes it changes in a copy of the folder."""

    run: LocalRun
    output: str
    """What `dynalign run` has written to its standard output."""


def finished_run(factory: pytest.TempPathFactory, fields: Mapping[str, Any]) -> FinishedRun:
    """The run that nobody disturbs with these fields of its specification, which all workers share."""
    own = factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / f"run-{hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    output = folder / "output"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = write_run(folder, load_testbed(), fields)
        if not output.exists():
            result = run.finish()
            assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{run.logs()}"
            output.write_text(result.stdout)
    return FinishedRun(run, output.read_text())
