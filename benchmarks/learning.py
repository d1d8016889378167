"""`make bench-learning`: what self-alignment does to answers whose worth is known.

The test-bed's model (lab/testbed.py) aligns itself for some iterations, once a seed, by `dynalign run`. Its
judge was taught a rule, and the rule is known here, so four things can be told that no other model can tell: whether
answers really got better, how well the model's own judgement agrees with the truth, whether the fitness gates speak
before the truth is lost, and whether `Rollback` gets back what was lost. For the last two, every seed runs again with
settings that drive the policy away from what its judge understands: without any protection (`HACKED`), with a gate and
`Rollback` (`RESCUED`), with an honest judge from outside beside the policy's own, which evaluates too (`advised`), and,
to tell a judge's faults from those of so large a step, with the honest judge alone and no protection (`honest`).

The gates' figures were chosen by looking at seed 0 alone; the seeds that are reported begin at 1.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from benchmarks.learning_figures import GATES, Iteration, Run, summarise
from benchmarks.report import print_report, this_machine
from dynalign_contract.layout import ANSWERS_FILE, RunLayout
from dynalign_contract.metrics import JudgeMetrics, read_metrics
from dynalign_contract.records import ANSWER, JUDGEMENT, ROLLOUT, read_parts, read_rows
from dynalign_contract.stages import Stage
from dynalign_trainer.judge.trust import spearman
from dynalign_trainer.scoring.scores import mean_of
from lab.local_runs import SPEC, LocalRun, write_run
from lab.rule_server import MODEL, serve_rule
from lab.testbed import Testbed, load_testbed

NAME: Final = "bench-learning"
SEEDS, ITERATIONS, JOBS = (1, 2, 3, 4, 5), 6, 2
HEALTHY: Final[Mapping[str, Any]] = {
    "training": {**SPEC["training"], "learningRate": 2e-3},
    "evaluation": {**SPEC["evaluation"], "every": ITERATIONS},
}
"""The rule is the evaluation here; the run's own takes place at its end only."""
HACKED: Final[Mapping[str, Any]] = {
    **HEALTHY,
    "judging": {**SPEC["judging"], "gates": {"onUnfit": "Continue"}},
    "prompts": {**SPEC["prompts"], "agents": {"author": {"model": "Base"}}},
    "training": {**SPEC["training"], "learningRate": 1e-2},
}
"""A learning rate five times as high; the base model writes the prompts, for the policy soon cannot."""
RESCUED: Final[Mapping[str, Any]] = {
    **HACKED,
    "judging": {
        **SPEC["judging"],
        "gates": {"minBaseAgreement": GATES.min_base_agreement, "onUnfit": "UseBase"},
    },
    "evaluation": {**SPEC["evaluation"], "onRegression": "Rollback"},
}
"""The same, evaluated after each iteration and rolled back; the gate hands the judging to the base model.

The canary gate would stop it: once the answers are as bad as canaries no judge tells them apart.
"""
KINDS: Final = {"healthy": HEALTHY, "hacked": HACKED, "rescued": RESCUED, "advised": HACKED, "honest": HACKED}
"""Name -> settings; `_ask_outside` has the rest of those that ask a judge from outside."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every run has ended, 1 with the logs of the one that has not."""
    parser = argparse.ArgumentParser(prog=NAME, description="Self-alignment against a known rule.")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=tuple(KINDS))
    parser.add_argument("--jobs", type=int, default=JOBS, help="runs that take place side by side, a core each")
    parser.add_argument(
        "--records", type=Path, help="a .jsonl file that keeps the runs: those that it has are not made again"
    )
    options = parser.parse_args(arguments)
    machine = this_machine()
    testbed = load_testbed()
    wanted = [(kind, seed) for kind in options.kinds for seed in options.seeds]
    found = dict(_read_records(options.records))
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder, ThreadPoolExecutor(options.jobs) as pool:

        def make(kind: str, seed: int) -> Run:
            run = align(Path(folder, f"{kind}-{seed}"), testbed, kind, seed, options.iterations)
            line = json.dumps(asdict(run))
            sys.stderr.write(f"{line}\n")
            if options.records:
                with options.records.open("a") as records:
                    records.write(f"{line}\n")
            return run

        missing = [key for key in wanted if key not in found]
        found |= zip(missing, pool.map(lambda key: make(*key), missing), strict=True)
    table, values = summarise([found[key] for key in wanted])
    print_report(NAME, machine, table, values, {})
    return 0


def align(folder: Path, testbed: Testbed, kind: str, seed: int, iterations: int) -> Run:
    """Make one run in a new folder. Raises RuntimeError with its logs when it fails.

    A hacked run may: its judge can end so spoilt that it says nothing any more.
    """
    folder.mkdir()
    with serve_rule(testbed.rule) as url:
        settings = {**KINDS[kind], **_ask_outside(kind, url)}
        run = write_run(folder, testbed, {**settings, "seed": seed, "iterations": iterations})
        done = run.finish(env=os.environ | {"OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"})
    if done.returncode != 0 and kind != "hacked":
        raise RuntimeError(f"{kind}, seed {seed}:\n{done.stdout}\n{done.stderr}\n{run.logs()}")
    best = run.status.best
    layout = RunLayout(run.workdir)
    judged = [_read_judged(layout, testbed, index) for index in range(iterations) if _is_judged(run, index)]
    return Run(
        kind=kind,
        seed=seed,
        iterations=[_summarise(run, testbed, index, pairs) for index, pairs in enumerate(judged)],
        agreement=_agreement([pair for pairs in judged for pair in pairs]),
        exported=best.iteration if best else None,
    )


def _ask_outside(kind: str, url: str) -> dict[str, Any]:
    """Settings for the judge behind a server: beside the policy, and as the evaluation's; or alone."""
    server = {"url": url, "model": MODEL}
    outside = {"name": "outside", "judge": "Endpoint", "endpoint": server}
    if kind == "honest":
        return {"judging": {**SPEC["judging"], "judges": [outside], "gates": {"onUnfit": "Continue"}}}
    if kind == "advised":
        judges = [{"name": "self", "judge": "Live"}, outside]
        win_rate = {**SPEC["evaluation"]["winRate"], "judges": ["Endpoint"], "endpoint": server}
        return {
            # a judge that says nothing any more is left out
            "judging": {**SPEC["judging"], "judges": judges, "gates": {"onUnfit": "LeaveOut"}},
            "evaluation": {**RESCUED["evaluation"], "winRate": win_rate},
        }
    return {}


def _read_records(path: Path | None) -> Iterator[tuple[tuple[str, int], Run]]:
    if path is not None and path.exists():
        for line in path.read_text().splitlines():
            values = json.loads(line)
            iterations = [Iteration(**iteration) for iteration in values.pop("iterations")]
            yield (values["kind"], values["seed"]), Run(**values, iterations=iterations)


def _is_judged(run: LocalRun, index: int) -> bool:
    return any(i.index == index and i.reward is not None for i in run.status.iterations)


def _read_judged(layout: RunLayout, testbed: Testbed, index: int) -> list[tuple[float, float]]:
    """Reward, NaN where the judge gave none, and the rule's score of every answer of an iteration."""
    texts = {
        (row["prompt_id"], row["candidate"]): row["text"]
        for row in read_parts([layout.stage(Stage.GENERATE, index)], ROLLOUT)
    }
    judged = read_parts([layout.stage(Stage.JUDGE, index)], JUDGEMENT)
    return [(row["reward"], testbed.rule(texts[row["prompt_id"], row["candidate"]])) for row in judged]


def _agreement(judged: Sequence[tuple[float, float]]) -> float:
    """Spearman's rank correlation over the answers that got a reward; NaN where either side is constant."""
    return spearman(*zip(*judged, strict=True))


def _summarise(run: LocalRun, testbed: Testbed, index: int, judged: Sequence[tuple[float, float]]) -> Iteration:
    (stage,) = (s for s in run.status.iterations[index].stages if s.stage is Stage.JUDGE)
    metrics = read_metrics(stage.stage, stage.metrics)
    return Iteration(
        worth=fmean(worth for _, worth in judged),
        reward=mean_of(reward for reward, _ in judged),
        agreement=_agreement(judged),
        auc=_number(metrics.get(JudgeMetrics.canary_auc)),
        tau=_number(metrics.get(JudgeMetrics.judge_tau)),
        held_out=_held_out_worth(RunLayout(run.workdir), testbed, index),
    )


def _held_out_worth(layout: RunLayout, testbed: Testbed, index: int) -> float:
    answers = layout.stage(Stage.EVALUATE, index) / ANSWERS_FILE
    if not answers.exists():
        return math.nan
    version = f"iteration-{index:03d}"
    return fmean(testbed.rule(row["text"]) for row in read_rows(answers, ANSWER) if row["policy"] == version)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


if __name__ == "__main__":
    sys.exit(main())
