"""`make bench-checkpoints`: checkpoints of full training at real sizes, and what a killed process costs.

A Qwen3 of random weights is trained whole in bfloat16, in a process of its own as a run starts it, so that a checkpoint
has what a real one has: weights, float32 masters and both moments, 14 bytes a weight. The process is killed at random
moments and started again. Told are the size of a checkpoint, the seconds from its first byte to its seal, the training
time that each kill has cost, against `checkpointMinutes`, and the seconds until training went on.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from rich.table import Column, Table

from benchmarks.report import print_report, this_machine
from dynalign_contract.errors import StageError
from dynalign_contract.layout import MANIFEST
from dynalign_contract.settings import TrainingMethod
from dynalign_trainer.runtime.machine import count_cores, count_gpus
from dynalign_trainer.train.checkpoints import KEPT_CHECKPOINTS, find_checkpoint, step_of
from dynalign_trainer.train.job import (
    BEGUN_FILE,
    JOB_FILE,
    TrainJob,
    keep_reports,
    read_reports,
    read_result,
    write_job,
)
from dynalign_trainer.train.processes.launch import SINGLE_NODE, Processes, torchrun_command, worker_environment
from lab.recorded_groups import draw_groups
from lab.training_jobs import make_job, write_batch, write_model

NAME: Final = "bench-checkpoints"
LAYERS, HIDDEN, KILLS, MINUTES = 24, 896, 3, 0.5
_VOCABULARY: Final = 32_768
_STEPS: Final = 40
_POLL_SECONDS: Final = 0.02
LOG_FILE: Final = "workers.log"


@dataclass
class Seen:
    """What was seen of a training and its checkpoints from outside."""

    saved: list[float] = field(default_factory=list)
    """Seconds from a checkpoint's folder to its seal."""
    lost: list[float] = field(default_factory=list)
    """Training seconds that each kill has cost."""
    resumed: list[float] = field(default_factory=list)
    """Seconds from each start after a kill to the first step's end."""
    gib: float = 0.0
    """Size of a checkpoint."""
    most_gib: float = 0.0
    """Most that all checkpoints together took on the volume."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when no kill has cost more than the limit, 1 when one has, or nothing could be measured."""
    parser = argparse.ArgumentParser(prog=NAME, description="Checkpoints of full training, and what kills cost.")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="a multiple of 128")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="checkpointMinutes")
    parser.add_argument("--folder", type=Path, help="where model and checkpoints go; default: a temporary folder")
    given = parser.parse_args(arguments)
    machine = this_machine()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix=f"{NAME}-", dir=given.folder) as folder:
            job, weights = prepare(Path(folder), given)
            seen = train_with_kills(job, given.kills, 60 * given.minutes)
    except (StageError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    table, values, ratios = summarise(seen, weights, 60 * given.minutes)
    print_report(NAME, machine, table, values, ratios)
    return 0 if ratios["lost"] <= 1 else 1


def prepare(folder: Path, given: argparse.Namespace) -> tuple[TrainJob, int]:
    """Write the model, the batch and the job; returns the job and the number of weights."""
    shape = {
        "vocab_size": _VOCABULARY,
        "hidden_size": given.hidden,
        "num_hidden_layers": given.layers,
        "num_attention_heads": given.hidden // 64,
        "num_key_value_heads": given.hidden // 128,
        "head_dim": 64,
        "intermediate_size": 5 * given.hidden,
    }
    model = write_model(folder / "model", "cpu", shape)
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors")) // 2
    rows = draw_groups(steps=_STEPS, groups=1, candidates=2, prompt=16, lengths=(16, 24), vocabulary=_VOCABULARY)
    job = make_job(
        model=model,
        batch=write_batch(folder / "batch", rows),
        work=folder / "work",
        method=TrainingMethod.FULL,
        prompts_per_step=1,
        checkpoint_minutes=given.minutes,
    )
    _say(f"{weights / 1e9:.2f} billion weights")
    return job, weights


def train_with_kills(job: TrainJob, kills: int, limit: float) -> Seen:
    """Train to the end, killed so often, each time up to three limits after the first step."""
    seen, draw = Seen(), random.Random(7)  # noqa: S311 - moments, no secrets
    for number in range(kills + 1):
        moment = draw.uniform(0.2, 3.0) * limit if number < kills else None
        started = time.monotonic()
        attempt = Attempt(job.model_copy(update={"resume": find_checkpoint(job.work)}), seen)
        attempt.run(moment, started)
        if moment is not None:
            _say(f"killed after {moment:.0f} s: {seen.lost[-1]:.1f} s of training lost")
    if read_result(job.work) is None:
        raise StageError(f"the training has left no result: {(job.work / LOG_FILE).read_text()[-2000:]}")
    return seen


class Attempt:
    """One process of a training, watched through its files."""

    def __init__(self, job: TrainJob, seen: Seen) -> None:
        self.job, self.seen = job, seen
        self._first = 0 if job.resume is None else step_of(job.resume)
        self._ready: float | None = None
        """When the model was loaded."""
        self._ends: dict[int, float] = {}
        """Step -> when its report was seen."""
        self._begun: dict[Path, float] = {}
        """Folder of a checkpoint -> when it was seen first."""
        self._sealed: set[Path] = set()

    def run(self, moment: float | None, started: float) -> None:
        """Run to the end, or kill the process so many seconds after its first step; `started` is when this began."""
        (self.job.work / BEGUN_FILE).unlink(missing_ok=True)
        keep_reports(self.job.work, self._first)
        write_job(self.job)
        processes = Processes(count=1, threads=count_cores())
        command = torchrun_command(processes, SINGLE_NODE, self.job.work / JOB_FILE)
        environment = {**os.environ, **worker_environment(processes, SINGLE_NODE, gpus=count_gpus())}
        with (self.job.work / LOG_FILE).open("a") as log:
            process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log)
        try:
            self._watch(process, lambda: moment is not None and self._seconds_since_first() >= moment)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self.job.resume is not None and self._ends:
            self.seen.resumed.append(min(self._ends.values()) - started)
        if moment is not None:
            self.seen.lost.append(self._lost(time.monotonic()))

    def _watch(self, process: "subprocess.Popen[bytes]", is_over: Callable[[], bool]) -> None:
        while process.poll() is None and not is_over():
            now = time.monotonic()
            if self._ready is None and (self.job.work / BEGUN_FILE).exists():
                self._ready = now
            for report in read_reports(self.job.work):
                if report.step > self._first:
                    self._ends.setdefault(report.step, now)
            self._look_at_checkpoints(now)
            time.sleep(_POLL_SECONDS)

    def _look_at_checkpoints(self, now: float) -> None:
        folders = [path for path in self.job.work.glob("checkpoint-*") if step_of(path) > self._first]
        for folder in folders:
            self._begun.setdefault(folder, now)
            if folder not in self._sealed and (folder / MANIFEST).exists():
                self._sealed.add(folder)
                self.seen.saved.append(now - self._begun[folder])
                self.seen.gib = _gib(folder)
                self.seen.most_gib = max(self.seen.most_gib, sum(map(_gib, self.job.work.glob("checkpoint-*"))))

    def _seconds_since_first(self) -> float:
        return time.monotonic() - min(self._ends.values()) if self._ends else 0.0

    def _lost(self, killed: float) -> float:
        """Training time after the last sealed checkpoint, without the time in which checkpoints were written."""
        kept = max((step_of(folder) for folder in self._sealed), default=self._first)
        since = self._ends.get(kept, self._ready or killed)
        after = [begun for folder, begun in self._begun.items() if step_of(folder) > kept]
        pause = self.seen.saved[-1] if self._sealed else 0.0
        return max(0.0, min([killed, *after]) - since - pause)


def summarise(seen: Seen, weights: int, limit: float) -> tuple[Table, dict[str, float], dict[str, float]]:
    """The table, and values and ratios of the JSON line."""
    values = {
        "weights": weights,
        "checkpoint_gib": round(seen.gib, 2),
        "most_gib": round(seen.most_gib, 2),
        "save_seconds": round(median(seen.saved), 2),
        "resume_seconds": round(median(seen.resumed), 2),
        "lost_seconds": round(max(seen.lost), 2),
        "limit_seconds": limit,
    }
    table = Table("what", Column("figure", justify="right"))
    table.add_row("weights", f"{weights:,}")
    table.add_row("a checkpoint, GiB", f"{seen.gib:.2f}")
    table.add_row(f"all of them at a time (up to {KEPT_CHECKPOINTS + 1}), GiB", f"{seen.most_gib:.2f}")
    table.add_row("seconds to write, digest and seal one, median", f"{values['save_seconds']:.1f}")
    table.add_row("GiB a second", f"{seen.gib / values['save_seconds']:.2f}")
    table.add_row("seconds from a start to the first step, median", f"{values['resume_seconds']:.1f}")
    table.add_row(f"training seconds lost by a kill, most of {len(seen.lost)}", f"{values['lost_seconds']:.1f}")
    table.add_row("checkpointMinutes, seconds", f"{limit:.1f}")
    return table, values, {"lost": round(values["lost_seconds"] / limit, 3)}


def _gib(folder: Path) -> float:
    """Size of a folder, which may be removed meanwhile."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size / 2**30


def _say(text: str) -> None:
    sys.stderr.write(f"{NAME}: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
