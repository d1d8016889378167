"""`make bench-peer`: one iteration of self-alignment by dynalign, by TRL alone, and by plain scripts with vLLM and TRL.

All three get the same model, prompts, group size, length of answers, adapter, learning rate and optimiser steps, and
the judge's questions are the same texts. *dynalign*: `dynalign run` with `rollout: Fused`, from the first process that
samples to the end of training. *trl*: one process, GRPOTrainer with its own generation, and a reward function in which
the policy answers the judge's questions by transformers, in batches. *scripts*: vLLM samples, vLLM judges, GRPOTrainer
trains on what they have written, each in a process of its own. Their times include starts, imports and ends.

Runs alternate, in turned order each round, so that other work on the machine meets all of them. Every ratio is peer /
dynalign, the median over rounds.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.iteration import in_turn
from benchmarks.peers.measurement import Contender, Measurement, describe_differences, summarise
from benchmarks.peers.ours import Size, build_run, measure_ours, read_plan
from benchmarks.peers.plan import PeerError, Plan
from benchmarks.peers.theirs import measure_theirs
from benchmarks.report import print_report, this_machine
from dynalign_contract.errors import StageError
from dynalign_trainer.fetch.bundled import fetch_bundled
from dynalign_trainer.runtime.machine import prepare_devices

NAME: Final = "bench-peer"
MODEL: Final = "smollm2-135m-instruct"
ROUNDS: Final = 3
PROMPTS: Final = Path(__file__).parent / "peers/prompts.jsonl"
"""Situations and what is asked, as long as an author's; one more than `--prompts` is needed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when the contenders did the same work, 1 when one failed or did other work, as a sentence says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = Size()
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="iterations of each contender")
    parser.add_argument("--prompts", type=int, default=size.prompts, help="24 at most")
    parser.add_argument("--candidates", type=int, default=size.candidates)
    parser.add_argument("--tokens", type=int, default=size.tokens)
    parser.add_argument("--model", type=Path, help="a Hugging Face folder in place of the bundled model")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-peer"), help="is emptied first")
    given = parser.parse_args(arguments)
    size, machine = Size(given.prompts, given.candidates, given.tokens), this_machine()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    prepare_devices()
    try:
        plan, measured = measure(size, given.rounds, given.model, given.folder)
    except (PeerError, StageError) as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    differences = describe_differences(plan, measured)
    table, values, ratios = summarise(measured)
    print_report(NAME, machine, table, values | {"equal_work": float(not differences)}, ratios)
    for difference in differences:
        sys.stderr.write(f"{NAME}: {difference}\n")
    return 1 if differences else 0


def measure(size: Size, rounds: int, model: Path | None, folder: Path) -> tuple[Plan, list[Measurement]]:
    """All runs, and what the peers were given: the prompts that dynalign, which is first, has trained on."""
    plan: Plan | None = None
    measured: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as name:
        run = build_run(size, model or write_model(Path(name) / "model"), write_prompts(folder, size))
        for number, contender in in_turn(list(Contender), rounds):
            work = folder / f"{contender}-{number + 1}"
            if contender == Contender.DYNALIGN:
                measured.append(measure_ours(run, work, number))
                plan = plan or read_plan(run, work)
            elif plan is not None:
                measured.append(measure_theirs(Contender(contender), plan, work, number))
            sys.stderr.write(f"{NAME}: round {number + 1} of {rounds}: {measured[-1]}\n")
    if plan is None:
        raise PeerError("no round was asked for: --rounds is at least 1")
    return plan, measured


def write_model(folder: Path) -> Path:
    """Write the bundled model; every contender reads the same files. Raises StageError when it is not installed."""
    folder.mkdir()
    fetch_bundled(MODEL, folder, lambda _done, _total: None)
    return folder


def write_prompts(folder: Path, size: Size) -> Path:
    """Write the file of supplied prompts: those of the iteration, and one that dynalign holds out.

    Raises PeerError when there are not so many.
    """
    lines, path = PROMPTS.read_text().splitlines(keepends=True), folder / PROMPTS.name
    if not 1 <= size.prompts < len(lines):
        raise PeerError(f"--prompts is {size.prompts}; write a number from 1 to {len(lines) - 1}")
    path.write_text("".join(lines[: size.prompts + 1]))
    return path


if __name__ == "__main__":
    sys.exit(main())
