"""The tables of docs/scaling.md, from the estimate's own code and from the figures of docs/benchmarks.md."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from dynalign_contract.accelerators import ACCELERATORS, GIB, Hardware
from dynalign_contract.stages import ITERATION_STAGES, ROLLOUT_STAGES, Stage
from dynalign_operator.api.rollouts import choose_rollout
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.cli.check_files import find_objective
from dynalign_operator.cli.estimate import shape_of_model
from dynalign_operator.cli.load import load_run_file
from dynalign_operator.cli.tables import describe_seconds
from dynalign_operator.estimate.hardware import GPU_EFFICIENCY
from dynalign_operator.estimate.run_estimate import STAGES, RunEstimate, estimate_run, executions
from support.pages import ROOT
from support.published import figures, not_expressible

DAY: Final = 86_400
GPUS: Final = 4000
RUNS: Final = 1000
FILE_SERVICE: Final = 10e9
"""Bytes a second: the unit in which the page counts a file service."""


@dataclass(frozen=True)
class Case:
    """A run file of the examples, with fields of it set."""

    name: str
    file: str
    settings: tuple[str, ...] = ()
    volume: float | None = None

    @property
    def spec(self) -> AlignmentRunSpec:
        return load_run_file(ROOT / "examples" / self.file, self.settings).run.spec

    def estimate(self) -> RunEstimate:
        return _estimate(self)

    @property
    def gpus(self) -> int:
        return max(entry.gpus for entry in self.estimate().stages)

    @property
    def read_bytes(self) -> float:
        """Bytes that the whole run reads from its volume."""
        times = executions(self.spec)
        return sum(entry.read_gib * GIB * times[entry.stage] for entry in self.estimate().stages)

    @property
    def jobs(self) -> int:
        """Jobs of the whole run, one report for each iteration and one at its end among them."""
        times, choice = executions(self.spec), choose_rollout(self.spec)
        parts = sum(times[stage] for stage in ROLLOUT_STAGES) - self.spec.iterations if choice.is_fused else 0
        evaluations = times[Stage.EVALUATE] - 1 if choice.has_evaluation else 0
        return sum(times[stage] for stage in STAGES) - parts - evaluations + self.spec.iterations + 1


@cache
def _estimate(case: Case) -> RunEstimate:
    run_file = load_run_file(ROOT / "examples" / case.file, case.settings)
    shape = shape_of_model(run_file.run.spec.model.uri, None)
    objective = find_objective(run_file)
    return estimate_run(run_file.run.spec, objective, shape, Hardware.H100, volume_bandwidth=case.volume)


_WIDE = ("spec.generation.shards=16", "spec.training.nodes=8")
_MORE = ("spec.prompts.perIteration=2048", "spec.training.promptsPerStep=256")
RUN_CASES: Final = (
    Case("8B on 8", "qwen3-8b.yaml"),
    Case("8B on 8, rollout: Separate", "qwen3-8b.yaml", ("spec.rollout=Separate",)),
    Case("8B on 8, 1,024 prompts", "qwen3-8b.yaml", ("spec.prompts.perIteration=1024",)),
    Case("gpt-oss-20b on 8", "gpt-oss-20b.yaml"),
    Case("70B on 16", "llama-70b.yaml"),
    Case("70B on 64", "llama-70b.yaml", _WIDE),
    Case("70B on 64, 20 GB/s", "llama-70b.yaml", _WIDE, volume=20e9),
    Case("70B on 64, 20 GB/s, 2,048 prompts", "llama-70b.yaml", (*_WIDE, *_MORE), volume=20e9),
)
DAY_CASES: Final = (RUN_CASES[0], RUN_CASES[3], RUN_CASES[4], RUN_CASES[5])


def runs_table() -> str:
    rows = []
    for case in RUN_CASES:
        found = case.estimate()
        stages = [entry for entry in found.stages if entry.stage in ITERATION_STAGES]
        rows.append(
            [
                case.name,
                case.gpus,
                describe_seconds(found.iteration_seconds),
                describe_seconds(sum(entry.start_seconds for entry in stages)),
                describe_seconds(sum(entry.work_seconds for entry in stages)),
                f"{found.useful_share:.0%}",
                describe_seconds(found.run_seconds),
                f"{found.gpu_hours:,.1f}",
                f"{sum(entry.read_gib for entry in stages):,.0f}",
            ]
        )
    head = (
        "run",
        "GPUs",
        "iteration",
        "starts",
        "work",
        "useful",
        "10 iterations",
        "GPU-hours",
        "GiB read an iteration",
    )
    return _table(head, rows)


def day_table() -> str:
    """What 1,000 runs a day take."""
    per_second = bench_scale()["jobs_per_second"]
    rows: list[list[object]] = [
        ["GPUs held, mean", *(f"{_held(case):,.0f} ({_held(case) / GPUS:.0%})" for case in DAY_CASES)],
        ["runs at a time", *(f"{RUNS * case.estimate().run_seconds / DAY:,.0f}" for case in DAY_CASES)],
        ["Jobs a second", *(f"{RUNS * case.jobs / DAY:.2f}" for case in DAY_CASES)],
        [
            "share of what operator and API server carry on 2 cores",
            *(f"{RUNS * case.jobs / DAY / per_second:.0%}" for case in DAY_CASES),
        ],
        ["GB/s read from volumes, mean", *(f"{RUNS * case.read_bytes / DAY / 1e9:,.1f}" for case in DAY_CASES)],
    ]
    return _table((f"{RUNS:,} runs a day", *(case.name for case in DAY_CASES)), rows)


def limits_table() -> str:
    """Runs a day at which each part is full; the lowest is bold."""
    limits: Mapping[str, Callable[[Case], float]] = {
        f"{GPUS:,} GPUs": lambda case: GPUS * 24 / case.estimate().gpu_hours,
        f"a file service of {FILE_SERVICE / 1e9:.0f} GB/s": lambda case: FILE_SERVICE * DAY / case.read_bytes,
        "operator and API server on 2 cores": lambda case: bench_scale()["jobs_per_second"] * DAY / case.jobs,
        "active runs, the most that was measured": lambda case: (
            bench_scale()["active"] * DAY / case.estimate().run_seconds
        ),
    }
    least = {case.name: min(limit(case) for limit in limits.values()) for case in DAY_CASES}
    rows: list[list[object]] = []
    for name, limit in limits.items():
        cells = [(limit(case), f"{limit(case):,.0f}") for case in DAY_CASES]
        rows.append(
            [
                name,
                *(
                    f"**{text}**" if value == least[c.name] else text
                    for c, (value, text) in zip(DAY_CASES, cells, strict=True)
                ),
            ]
        )
    return _table(("full at so many runs a day", *(case.name for case in DAY_CASES)), rows)


def queue_table() -> str:
    """Mean wait of a Job that needs a whole node, in mean durations of such Jobs."""
    loads = (0.5, 0.8, 0.9, 0.95, 0.98)
    rows = [
        [f"{nodes:,} ({8 * nodes:,} GPUs)", *(_wait(erlang_wait(nodes, load)) for load in loads)]
        for nodes in (1, 8, 63, GPUS // 8)
    ]
    return _table(("nodes", *(f"{load:.0%} busy" for load in loads)), rows)


def factors_table() -> str:
    found, h100 = bench_scale(), ACCELERATORS[Hardware.H100]
    rows: list[list[object]] = [
        [f"`{name}`", f"{factor.value:g}", factor.what, factor.source] for name, factor in GPU_EFFICIENCY.factors
    ]
    rows += [
        ["H100", f"{h100.flops / 1e12:g}", "TFLOPS, dense BFloat16", h100.source],
        ["H100", f"{h100.bandwidth / 1e12:g}", "TB/s of memory", h100.source],
        ["H100", f"{h100.memory_gib:g}", "GiB of memory", h100.source],
        ["answers", "0.75", "mean length, as a share of `generation.maxTokens`", "assumed (`--answer-share`)"],
        ["Jobs", f"{found['jobs_per_second']:g}", "a second, operator, API server and etcd on 2 cores", "bench-scale"],
        ["Jobs", f"{found['milliseconds']:g}", "ms of CPU each, all processes together", "bench-scale"],
        ["active runs", f"{found['active']:g}", "at a time, the most that was measured", "bench-scale"],
    ]
    return _table(("factor", "value", "what", "source"), rows)


def published_table() -> str:
    rows = [
        [f.what, f.source, f"{f.published:,g} {f.unit}", f"{_short(f.ours())}", f"{f.ratio:.2f}", f.remark]
        for f in figures()
    ]
    return _table(("figure", "source", "published", "ours", "ours / published", "remark"), rows)


def unexpressed_table() -> str:
    return _table(("figure", "why not"), [list(item) for item in not_expressible().items()])


def tables() -> dict[str, str]:
    """Name of a table in the page -> the table."""
    return {
        "runs": runs_table(),
        "day": day_table(),
        "limits": limits_table(),
        "queue": queue_table(),
        "factors": factors_table(),
        "published": published_table(),
        "unexpressed": unexpressed_table(),
    }


@cache
def bench_scale() -> dict[str, float]:
    """Figures of bench-scale, as docs/benchmarks.md has them."""
    text = " ".join((ROOT / "docs" / "benchmarks.md").read_text().partition("## bench-scale")[2].split())
    patterns = {
        "milliseconds": r"spend (\d+) ms of CPU on a Job",
        "jobs_per_second": r"two cores carry (\d+) Jobs a second",
        "active": r"median wait is (\d+) runs",
    }
    return {name: float(found[1]) for name, pattern in patterns.items() if (found := re.search(pattern, text))}


def erlang_wait(servers: int, load: float) -> float:
    """Mean wait in mean service times of a queue M/M/c (Erlang C)."""
    offered = servers * load
    blocked = 1.0
    for count in range(1, servers + 1):  # Erlang B, by its recursion
        blocked = offered * blocked / (count + offered * blocked)
    waits = blocked / (1 - load * (1 - blocked))
    return waits / (servers * (1 - load))


def _held(case: Case) -> float:
    return RUNS * case.estimate().gpu_hours / 24


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or math.isclose(value, round(value)) else f"{value:.1f}"


def _wait(value: float) -> str:
    return "below 0.01" if value < 0.01 else f"{value:.2g}"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
