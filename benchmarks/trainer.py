"""`make bench-trainer`: the Packed backend against TRL's GRPOTrainer on the same recorded groups.

Both train the bundled SmolLM2-135M-Instruct with LoRA in bfloat16, by the very worker that a run starts, each time in a
process of its own, by turns. Prompts and completions have log-normal lengths; their tokens are random, which no figure
depends on, and their recorded log-probabilities are the model's own. Throughput is that of the optimiser steps: loss
tokens divided by the seconds of their reports. The survey before the first step is in `whole` and `cpu`, imports and
the loading of the model in none. Memory is the process's peak resident set, imports and model included.
"""

import argparse
import json
import math
import random
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from rich.table import Column, Table

from benchmarks.report import print_report, this_machine
from dynalign_contract.errors import StageError
from dynalign_contract.layout import BATCH_FILE
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.records import BATCH, BatchRow, write_rows
from dynalign_contract.settings import DType, TrainingBackend, TrainingSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.fetch.bundled import fetch_bundled
from dynalign_trainer.runtime.machine import count_cores, count_gpus
from dynalign_trainer.train.job import BEGUN_FILE, TrainJob, read_job, read_reports
from dynalign_trainer.train.processes.launch import SINGLE_NODE, Processes, run_workers, worker_environment
from dynalign_trainer.train.processes.worker import train

NAME: Final = "bench-trainer"
MODEL: Final = "smollm2-135m-instruct"
COMPARED: Final = (TrainingBackend.PACKED, TrainingBackend.TRL)
GROUPS, CANDIDATES, PAIRS = 16, 8, 5
SHORTEST, LONGEST, MEDIAN, SIGMA = 16, 256, 64, 0.7
"""Lengths in tokens, log-normal, cut at both ends."""
SETTINGS: Final = TrainingSettings(
    prompts_per_step=8, tokens_per_micro_batch=1024, gradient_checkpointing=False, checkpoint_steps=10_000
)
"""`microBatch` is its default of 4 sequences, at most 2048 tokens. No gradient checkpointing, as in the example."""
_MEASURED_FILE: Final = "measured.json"
_MEASURES: Final = ("throughput", "whole", "cpu", "memory_gib")
_COLUMNS: Final = ("pairs", "loss tok/s", "whole", "by CPU time", "peak GiB")
_SEED: Final = 7
_DIGEST: Final = "sha256:" + "0" * 64
BATCH_FOLDER: Final = "batch"


@dataclass(frozen=True)
class Measurement:
    """One training of one backend."""

    throughput: float
    """Loss tokens per second of the optimiser steps."""
    whole: float
    """Loss tokens per second from the model standing ready to the last step, survey included."""
    cpu: float
    """Loss tokens per second of processor time over the same stretch: hardly disturbed by other work on the machine."""
    memory_gib: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when everything was measured, 1 with a sentence when it could not be."""
    parser = argparse.ArgumentParser(prog=NAME, description="Packed against TRL on the same recorded groups.")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="trainings of each backend")
    parser.add_argument("--groups", type=int, default=GROUPS, help=f"prompts, of {CANDIDATES} candidates each")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train is not None:
        train_here(options.train)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine = this_machine()
    measured: dict[TrainingBackend, list[Measurement]] = {backend: [] for backend in COMPARED}
    try:
        with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder:
            rows = prepare(Path(folder), options.groups)
            for pair in range(options.pairs):
                for backend in COMPARED:
                    measured[backend].append(measure(Path(folder), rows, backend))
                    _say(f"pair {pair + 1} of {options.pairs}, {backend}: {measured[backend][-1]}")
    except StageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    table, values, ratios = summarise(measured, rows)
    print_report(NAME, machine, table, values, ratios)
    return 0


def prepare(folder: Path, groups: int) -> list[BatchRow]:
    """Write the model and the batch; returns its rows. Raises StageError when the model is not installed."""
    model = folder / "model"
    model.mkdir()
    _say("reading the bundled model")
    fetch_bundled(MODEL, model, lambda _done, _total: None)
    _say("recording the model's own log-probabilities")
    rows = score(model, draw_rows(groups))
    write_batch(folder / BATCH_FOLDER, rows)
    return rows


def write_batch(folder: Path, rows: Sequence[BatchRow]) -> None:
    """Write the batch as the train stage leaves it: a folder with a manifest, which the workers check."""
    folder.mkdir()
    write_rows(folder / BATCH_FILE, rows, BATCH)
    described = describe_file(folder, BATCH_FILE, len(rows))
    write_manifest(folder, Manifest(stage=Stage.TRAIN, iteration=0, config_digest=_DIGEST, files=(described,)))


def draw_rows(groups: int) -> list[BatchRow]:
    """Groups of random tokens with log-normal lengths, without log-probabilities."""
    draw = random.Random(_SEED)  # noqa: S311 - test data
    vocabulary = range(100, 49_000)

    def tokens() -> list[int]:
        length = round(math.exp(draw.gauss(math.log(MEDIAN), SIGMA)))
        return draw.choices(vocabulary, k=min(LONGEST, max(SHORTEST, length)))

    rows: list[BatchRow] = []
    for group in range(groups):
        prompt = tokens()
        for candidate in range(CANDIDATES):
            reward = draw.random()
            rows.append(
                {
                    "step": group // SETTINGS.prompts_per_step,
                    "prompt_id": f"p{group:03d}",
                    "candidate": candidate,
                    "prompt_ids": prompt,
                    "completion_ids": tokens(),
                    "logprobs": [],
                    "reward": reward,
                    "advantage": 2 * reward - 1,
                    "masked": False,
                }
            )
    return rows


def score(model: Path, rows: Sequence[BatchRow]) -> list[BatchRow]:
    """The rows with the log-probabilities of transformers' own forward pass."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - what trains must import it as a worker does

    torch.set_num_threads(1)  # beside other work, threads that wait for each other take minutes for what takes seconds
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, local_files_only=True)
    scored: list[BatchRow] = []
    for row in rows:
        ids = torch.tensor([[*row["prompt_ids"], *row["completion_ids"]]])
        with torch.no_grad():
            logits = policy(ids, logits_to_keep=len(row["completion_ids"]) + 1).logits[0, :-1].float()
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(row["completion_ids"])[:, None])[:, 0]
        scored.append({**row, "logprobs": logprobs.tolist()})
    return scored


def measure(folder: Path, rows: Sequence[BatchRow], backend: TrainingBackend) -> Measurement:
    """Train once, in processes of its own. Raises TrainingFailedError with the last lines that they wrote."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        job = _job(folder, work, backend)
        (work / "job.json").write_text(job.to_json())
        torchrun = [sys.executable, "-m", "torch.distributed.run", *SINGLE_NODE.arguments, "--nproc-per-node", "1"]
        processes = Processes(count=1, threads=count_cores())
        run_workers(
            [*torchrun, "--module", "benchmarks.trainer", "--train", str(work / "job.json")],
            worker_environment(processes, SINGLE_NODE, gpus=count_gpus()),
            watch=lambda: None,
        )
        measured = json.loads((work / _MEASURED_FILE).read_text())
        tokens = sum(len(row["completion_ids"]) for row in rows)
        return Measurement(
            throughput=tokens / sum(report.seconds for report in read_reports(work)),
            whole=tokens / measured["seconds"],
            cpu=tokens / measured["cpu_seconds"],
            memory_gib=measured["peak_kib"] / 2**20,
        )


def train_here(path: Path) -> None:
    """What torchrun starts: the worker's training, and a file with its times and the peak of this process's memory."""
    job = read_job(path)
    begun: list[tuple[float, float]] = []
    watcher = threading.Thread(target=_note_beginning, args=(job.work / BEGUN_FILE, begun), daemon=True)
    watcher.start()
    train(job)
    watcher.join()
    (clock, cpu), peak = begun[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = {"seconds": time.monotonic() - clock, "cpu_seconds": time.process_time() - cpu}
    (job.work / _MEASURED_FILE).write_text(json.dumps({**times, "peak_kib": peak}))


def _note_beginning(mark: Path, begun: list[tuple[float, float]]) -> None:
    """Note clock and processor time when the model stands ready."""
    while not mark.exists():
        time.sleep(0.02)
    begun.append((time.monotonic(), time.process_time()))


def summarise(
    measured: dict[TrainingBackend, list[Measurement]], rows: Sequence[BatchRow]
) -> tuple[Table, dict[str, float], dict[str, float]]:
    """The table, and values and ratios of the JSON line. Every ratio is the median over pairs of Packed / TRL."""
    table = Table("backend", *(Column(name, justify="right") for name in _COLUMNS))
    values: dict[str, float] = {}
    for backend, runs in measured.items():
        middle = {name: median(getattr(run, name) for run in runs) for name in _MEASURES}
        table.add_row(str(backend), str(len(runs)), *(f"{value:.2f}" for value in middle.values()))
        values |= {f"{backend.lower()}_{name}": round(value, 3) for name, value in middle.items()}
    pairs = list(zip(measured[TrainingBackend.PACKED], measured[TrainingBackend.TRL], strict=True))
    ratios = {
        name.removesuffix("_gib"): median(getattr(ours, name) / getattr(theirs, name) for ours, theirs in pairs)
        for name in _MEASURES
    }
    tokens = sum(len(row["completion_ids"]) for row in rows)
    table.caption = f"{len(rows)} completions of {tokens} tokens. Packed / TRL, medians over pairs: " + ", ".join(
        f"{name} {value:.2f}" for name, value in ratios.items()
    )
    return table, values, {name: round(value, 3) for name, value in ratios.items()}


def _job(folder: Path, work: Path, backend: TrainingBackend) -> TrainJob:
    facts: dict[str, Any] = {"temperature": 1.0, "max_tokens": LONGEST, "group_size": CANDIDATES, "iteration": 0}
    return TrainJob(
        model=folder / "model",
        start=None,
        batch=folder / BATCH_FOLDER / BATCH_FILE,
        work=work,
        output=work,
        training=SETTINGS.model_copy(update={"backend": backend}),
        dtype=DType.BFLOAT16,
        config_digest=_DIGEST,
        seed=_SEED,
        **facts,
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{NAME}: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
