"""Processes of stages: those that a `dynalign run` has started, and shards side by side on one folder."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from dynalign_contract.config import StageConfig
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.objectives import read_objective
from dynalign_operator.planning.observed import Observed, Step
from dynalign_operator.planning.stage_configs import build_stage_config
from lab.testbed import load_testbed


class NoStageError(Exception):
    """No stage runs."""


def stage_process(parent: int) -> psutil.Process:
    """The running stage: a child of `dynalign run`, or of its host. Raises NoStageError."""
    children = [child for child in psutil.Process(parent).children() if not is_report(child)]
    hosts = [child for child in children if "dynalign_trainer.preload_server" in command_of(child)]
    stages = [child for child in children if "dynalign_trainer.main" in command_of(child)]
    found = [*stages, *(child for host in hosts for child in host.children())]
    if not found:
        raise NoStageError
    (stage,) = found
    return stage


def kill_stage(parent: int) -> bool:
    """Kill the running stage; False if it ended by itself before that."""
    with contextlib.suppress(psutil.NoSuchProcess, NoStageError):
        stage_process(parent).kill()
        return True
    return False


def command_of(process: psutil.Process) -> list[str]:
    """A process's command line; empty for one that has just ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def is_report(process: psutil.Process) -> bool:
    """Whether this is the report stage, which runs beside the others."""
    return any("-report-a" in word for word in command_of(process))


def report_process(parent: int) -> psutil.Process | None:
    """The running report stage of a `dynalign run`."""
    return next((child for child in psutil.Process(parent).children() if is_report(child)), None)


def config_on_testbed(run: AlignmentRun, step: Step) -> StageConfig:
    """What the planner would have a stage of this run do now; the run's objective is the testbed's."""
    maps = {"testbed": {"objective.yaml": load_testbed().objective.read_text()}}
    return build_stage_config(run, run.status, step, 1, read_objective(Observed(run, config_maps=maps)))


def start_shard(root: Path, index: int) -> subprocess.Popen[bytes]:
    """Start a shard of the stage that `stage.json` in this folder describes, as a pod on a volume does."""
    command = [sys.executable, "-m", "dynalign_trainer.main", f"--config={root / 'stage.json'}", f"--root={root}"]
    environment = {**os.environ, "JOB_COMPLETION_INDEX": str(index)}
    return subprocess.Popen([*command, f"--result={root / f'result-{index}'}"], env=environment)


def until_there(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait for what the process makes."""
    while not path.exists():
        assert process.poll() is None, f"it ended before {path} was there"
        time.sleep(0.05)  # between two looks at the folder
