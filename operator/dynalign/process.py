"""A run on this machine as a process of its own, which goes on when the Python session that started it ends."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dynalign.errors import RunFailedError
from dynalign_operator.clusters.local.workdir import Workdir, is_locked

_DYNALIGN: Final = (sys.executable, "-c", "from dynalign_operator.cli.main import main; main()")
_LOOK_EVERY_SECONDS: Final = 0.05
OUTPUT: Final = ".session.log"
"""File of the working folder with what `dynalign run` prints. A new working folder may hold hidden files only."""


@dataclass(frozen=True)
class RunProcess:
    """`dynalign run`, started by this session."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def output(self) -> str:
        """What it has printed."""
        return _output_file(self.folder).read_text(errors="replace")

    def stop(self) -> int:
        """Ask it to stop; stages save what they can. Returns its exit code once it has ended."""
        self.process.terminate()
        return self.process.wait()


def start_process(file: Path, settings: Sequence[str], folder: Path) -> RunProcess:
    """Start a run and return once it works in its folder. Raises RunFailedError when it ends before that."""
    arguments = ["run", str(file), *(word for setting in settings for word in ("--set", setting))]
    log = _output_file(folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        # in a session of its own: the interrupt of a notebook's cell stops the waiting, not the run
        started = subprocess.Popen(
            [*_DYNALIGN, *arguments, "--workdir", str(folder), "--plain"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    found = RunProcess(started, folder)
    workdir = Workdir(folder)
    while not (is_locked(workdir) and workdir.run_file.is_file()):
        if started.poll() is not None:
            if started.returncode == 0:
                break
            raise RunFailedError(found.output.strip())
        time.sleep(_LOOK_EVERY_SECONDS)
    return found


def _output_file(folder: Path) -> Path:
    return folder / OUTPUT
