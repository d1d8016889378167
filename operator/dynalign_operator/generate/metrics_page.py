"""docs/reference/metrics.md, generated from the definitions: `--write FILE`, or `--check FILE` for drift."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from dynalign_contract.metrics import STAGE_METRICS, AcrossShards, MetricDef
from dynalign_contract.stages import JOINED_STAGES, SHARDED_STAGES
from dynalign_operator.generate.generator import run_generator
from dynalign_operator.metrics.definition import MetricDefinition
from dynalign_operator.metrics.operator import OPERATOR_METRICS
from dynalign_operator.metrics.runs import RUN_METRICS

_HEAD: Final = """\
<!-- Generated from operator/dynalign_operator/metrics by `make generate`; change the definitions instead. -->
# Metrics

What the operator serves at `/metrics` (port 9090 of its Service). Times are in seconds, shares and ratios from 0 to 1.
Labels never name an iteration, a pod or a uid: how a number went over the iterations is what Prometheus keeps.
"""
_RUNS: Final = """\
Computed from the known runs whenever somebody asks, so that a deleted run leaves no series. A number that is not known
yet has no series either. What a stage measured comes from its result, hence appears when the stage has ended; progress
and tokens a second are read from the running stage.
"""
_STAGES: Final = """\
## The stages' own

Each stage's pod serves `/metrics` on port 9464 while it runs: `dynalign_stage_done` and `dynalign_stage_total` (in its
own units), `dynalign_stage_tokens_per_second`, `dynalign_stage_start_seconds`, and `dynalign_stage_metric{name}`, what
it measures on the way. The chart's PodMonitor scrapes them.
"""


_RESULTS: Final = """\
## What stages report in their results

In `status.iterations[].stages[].metrics`. Numbers of shards become one by sum, maximum or a mean that is weighted by
rows, or by the number that is named; those of evaluate are computed from the rows of all shards. `name/MEMBER` is a
number for each aspect or task.
"""


def render_reference() -> str:
    """The page: the operator's metrics, the runs' metrics, and where the stages' are."""
    parts = [_HEAD, "## Operator\n", *_table(OPERATOR_METRICS), "", f"## Runs\n\n{_RUNS}", *_table(RUN_METRICS), ""]
    return "\n".join([*parts, _STAGES, _RESULTS, *_results_table()])


def _table(metrics: Sequence[MetricDefinition]) -> Iterator[str]:
    yield "| metric | kind | labels | what |\n|---|---|---|---|"
    for metric in metrics:
        name = f"{metric.name}_total" if metric.series == (f"{metric.name}_total",) else metric.name
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{name}` | {metric.kind} | {labels} | {metric.text} |"


def _results_table() -> Iterator[str]:
    yield "| stage | name | unit | across shards | what |\n|---|---|---|---|---|"
    for metrics in STAGE_METRICS.values():
        families = (family.of(family.member.upper()) for family in metrics.families().values())
        for metric in (*metrics.singles().values(), *families):
            yield f"| {metric.stage} | `{metric.name}` | {metric.unit} | {_across(metric)} | {metric.text} |"
    yield ""


def _across(metric: MetricDef[Any]) -> str:
    """How the numbers of shards become one; empty where there is one number only."""
    is_measured_once = metric.stage in JOINED_STAGES and metric.across_shards is AcrossShards.MEAN
    if metric.stage not in SHARDED_STAGES or is_measured_once:
        return ""
    return f"{metric.across_shards} by `{metric.weight.name}`" if metric.weight else str(metric.across_shards)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or compare it and print a diff; returns the exit code."""
    return run_generator("Reference of the metrics", render_reference(), argv)


if __name__ == "__main__":
    sys.exit(main())
