"""The contenders that are processes of their own: TRL alone, and the plain scripts one after the other."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.peers.measurement import Contender, Measurement
from benchmarks.peers.plan import GENERATE, JUDGE, TRAIN, PeerError, Plan, Report
from benchmarks.peers.samples import REPORT_FILE
from dynalign_trainer.runtime.machine import count_cores, count_gpus
from dynalign_trainer.train.processes.launch import SINGLE_NODE, Processes, worker_environment

_MODULES: Final = {
    Contender.TRL: {"trl": "benchmarks.peers.trl_alone"},
    Contender.SCRIPTS: {
        GENERATE: "benchmarks.peers.script_generate",
        JUDGE: "benchmarks.peers.script_judge",
        TRAIN: "benchmarks.peers.script_train",
    },
}
"""Name of a report -> module of the process that writes it, in the order in which they run."""


def measure_theirs(contender: Contender, plan: Plan, folder: Path, number: int) -> Measurement:
    """Run a contender's processes. Raises PeerError when one of them fails."""
    folder.mkdir(parents=True)
    plan.write(folder / "plan.json")
    started, cpu = time.monotonic(), 0.0
    for module in _MODULES[contender].values():
        cpu += run_module(module, folder)
    wall = time.monotonic() - started
    reports = [(folder / REPORT_FILE.format(name)).read_bytes() for name in _MODULES[contender]]
    whole = sum(map(Report.model_validate_json, reports), Report())
    return Measurement(contender, number, wall=wall, command=wall, cpu=cpu, report=whole)


def run_module(module: str, folder: Path) -> float:
    """Run one process to its end; returns its seconds of processor time, those of its children included.

    It has the environment that dynalign gives to its training: threads, no hub, no compiler.
    """
    given = worker_environment(Processes(count=1, threads=count_cores()), SINGLE_NODE, gpus=count_gpus())
    command = [sys.executable, "-m", module, str(folder / "plan.json"), str(folder)]
    process = subprocess.Popen(command, env={**os.environ, **given}, stdout=sys.stderr)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise PeerError(f"{module} ended with code {process.returncode}; its last lines say why")
    return usage.ru_utime + usage.ru_stime
