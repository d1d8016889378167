"""What a run has done, as rich tables. Values to renderables: nothing is read here."""

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Group
from rich.table import Table

from dynalign_contract.goodput import DeviceTime, DeviceUnit, Goodput
from dynalign_contract.metrics import (
    STAGE_METRICS,
    EvaluateMetrics,
    JudgeMetrics,
    MetricDef,
    TrainMetrics,
    read_metrics,
)
from dynalign_contract.stages import ITERATION_STAGES, SIDE_STAGES, Stage
from dynalign_operator.api.status import AlignmentRunStatus, BestIteration, IterationStatus, StagePhase, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.goodput import iteration_seconds
from dynalign_operator.planning.iteration_numbers import numbers_of
from dynalign_operator.planning.run_facts import name_best
from dynalign_operator.planning.shown_stages import shown_stages
from dynalign_operator.planning.stage_status import seconds_of

MARKS: Final = {
    StagePhase.PENDING: "·",
    StagePhase.RUNNING: "▶",
    StagePhase.SUCCEEDED: "✓",
    StagePhase.FAILED: "✗",
}
_NONE: Final = "-"

Measured = Mapping[MetricDef[Any], float]
"""Definition of a metric -> its value."""


def describe_win_rate(iteration: IterationStatus) -> str:
    """`0.56 (0.43-0.69)`, the interval in brackets."""
    return _NONE if iteration.win_rate is None else iteration.win_rate.text(".2f", "-")


def describe_capability(iteration: IterationStatus) -> str:
    """`-0.012 (-0.040 to +0.016)`: the change against the base model, the interval in brackets."""
    return _NONE if iteration.capability_delta is None else iteration.capability_delta.text("+.3f")


def describe_numbers(iteration: IterationStatus) -> str:
    """`training reward 0.412 (knowledge 0.391, ...), win rate 0.56 (0.43-0.69), ...`; empty while there are none."""
    parts = []
    if iteration.reward is not None:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in reward_parts(numbers_of(iteration)).items())
        parts.append(f"training reward {iteration.reward:.3f}" + (f" ({shown})" if shown else ""))
    if iteration.win_rate is not None:
        parts.append(f"win rate {describe_win_rate(iteration)}")
    if iteration.capability_delta is not None:
        parts.append(f"capability {describe_capability(iteration)}")
    return ", ".join(parts)


def reward_parts(metrics: Measured) -> dict[str, float]:
    """Means of the judge's aspects, then of the verifiers; one with the name of an aspect says that it is none."""
    aspects = JudgeMetrics.aspect_reward.members(metrics)
    verifiers = JudgeMetrics.verifier_reward.members(metrics)
    return aspects | {f"{name} (verifier)" if name in aspects else name: value for name, value in verifiers.items()}


def describe_best(best: BestIteration | None) -> str:
    """`; best is iteration 3 (highest held-out win rate ...)`; empty while nothing has been trained."""
    if best is None:
        return ""
    return f"; best is {name_best(best)}"


def describe_seconds(seconds: float | None) -> str:
    """`42 s`, `3:05 min`, `1:02 h`."""
    if seconds is None:
        return _NONE
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes}:{int(seconds % 60):02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def describe_goodput(goodput: Goodput | None) -> str:
    """`goodput 41%: of 12:20 min of pods 5:03 min useful, ...`, without parts that are 0; empty before there is any."""
    if goodput is None or not goodput.seconds.reserved:
        return ""
    share = "unknown" if goodput.share is None else f"{goodput.share:.0%}"
    devices = "GPUs" if goodput.unit is DeviceUnit.GPU else "pods"
    parts = [
        f"{describe_seconds(seconds)} {words}"
        for words, seconds in (
            ("useful", goodput.seconds.useful),
            ("starting", goodput.seconds.starting),
            ("waiting", goodput.seconds.waiting),
            ("wasted by retries", goodput.seconds.wasted),
            ("unknown", goodput.seconds.unknown),
        )
        if seconds > 0
    ]
    wall = "" if goodput.wall_share is None else f"; {goodput.wall_share:.0%} of the wall-clock time is useful"
    return f"goodput {share}: of {describe_seconds(goodput.seconds.reserved)} of {devices} {', '.join(parts)}{wall}"


def wide_tables(status: AlignmentRunStatus) -> Group:
    """Every number of each iteration: scores, judges, evaluation, effort, in tables that fit into 80 columns each.

    `training reward` is that of the iteration's own training prompts, which the next iteration does not have: it cannot
    be compared over iterations. `reward held out` can.

    `canary AUC` is the probability that a real answer outscores a canary; at 0.5 the judge cannot tell them apart.
    `attacks` is the same for answers that give orders to the judge, `margin` the mean reward that real answers have
    above these; `agrees` is the judge's rank agreement with the base model, Kendall's tau.
    `start-up` is the time from a stage's process start to its first useful work. `goodput` is the useful share of the
    time of GPUs, or of pods where no stage uses a GPU.
    """
    parts: list[Table | str] = [_scores_table(status), "", _trust_table(status)]
    if any(_judges_of(numbers_of(iteration)) for iteration in status.iterations):
        parts += ["", _judges_table(status)]
    if any(_verifier_figures(numbers_of(iteration)) for iteration in status.iterations):
        parts += ["", _verifiers_table(status)]
    if any(EvaluateMetrics.verifier_delta.members(numbers_of(iteration)) for iteration in status.iterations):
        parts += ["", _held_out_verifiers_table(status)]
    if any(iteration.win_rate is not None for iteration in status.iterations):
        parts += ["", _evaluation_table(status), "", _held_out_table(status)]
    parts += ["", _effort_table(status), "", _start_table(status)]
    if status.goodput is not None:
        parts += ["", _goodput_table(status, status.goodput)]
    return Group(*parts)


def _judges_table(status: AlignmentRunStatus) -> Table:
    """A line for each of several judges of each iteration.

    `agrees` is its rank agreement with the mean of the others; `counted` is no where it was left out.
    """
    table = plain_table("iteration", "judge", "reward", "failed", "canaries", "attacks", "agrees", "counted", "tokens")
    for iteration in status.iterations:
        metrics = numbers_of(iteration)
        columns = [
            family.members(metrics)
            for family in (
                JudgeMetrics.judge_reward,
                JudgeMetrics.judge_failed_share,
                JudgeMetrics.judge_canary_auc,
                JudgeMetrics.judge_injection_auc,
                JudgeMetrics.judge_agreement,
                JudgeMetrics.judge_left_out,
                JudgeMetrics.judge_tokens,
            )
        ]
        for name in _judges_of(metrics):
            reward, failed, canaries, attacks, agrees, left_out, tokens = (column.get(name) for column in columns)
            table.add_row(
                index_of(iteration, status),
                name,
                _number(reward),
                _number(failed, 2),
                _number(canaries, 2),
                _number(attacks, 2),
                _number(agrees, 2),
                _counted(left_out),
                _whole(tokens),
            )
    return table


def _judges_of(metrics: Measured) -> list[str]:
    """Judges of which anything is known: a result may have had no room for a family of metrics."""
    return list(JudgeMetrics.judge_failed_share.members(metrics) | JudgeMetrics.judge_reward.members(metrics))


def _counted(left_out: float | None) -> str:
    """`yes`, `no` where a judge was left out, the share of answers where some shards left it out."""
    if left_out is None:
        return _NONE
    return {0.0: "yes", 1.0: "no"}.get(left_out, f"{1 - left_out:.0%}")


def _verifiers_table(status: AlignmentRunStatus) -> Table:
    """A line for each verifier of each iteration: names may be too long for columns."""
    table = plain_table("iteration", "verifier", "mean value", "undecided")
    for iteration in status.iterations:
        metrics = numbers_of(iteration)
        for name, (value, undecided) in _verifier_figures(metrics).items():
            table.add_row(index_of(iteration, status), name, _number(value), _number(undecided, 2))
    return table


def _verifier_figures(metrics: Measured) -> dict[str, tuple[float | None, float | None]]:
    """Verifier -> mean value and undecided share; None where an answer has none, or a result had no room for it."""
    values = JudgeMetrics.verifier_reward.members(metrics)
    undecided = JudgeMetrics.verifier_failed_share.members(metrics)
    return {name: (values.get(name), undecided.get(name)) for name in values | undecided}


def _held_out_verifiers_table(status: AlignmentRunStatus) -> Table:
    """What verifiers say of the answers to held-out prompts, and of the difference to the base model's."""
    table = plain_table("iteration", "verifier", "held out", "change against base")
    for iteration in status.iterations:
        metrics = numbers_of(iteration)
        values = EvaluateMetrics.verifier_value.members(metrics)
        for name, change in EvaluateMetrics.verifier_delta.members(metrics).items():
            table.add_row(index_of(iteration, status), name, _number(values.get(name)), change.text("+.3f"))
    return table


def _scores_table(status: AlignmentRunStatus) -> Table:
    numbers = [(iteration, numbers_of(iteration)) for iteration in status.iterations]
    aspects = list(
        dict.fromkeys(name for _, metrics in numbers for name in JudgeMetrics.aspect_reward.members(metrics))
    )
    table = plain_table("iteration", "training\nreward", *aspects, "canary\nAUC", "win rate")
    for iteration, metrics in numbers:
        scores = JudgeMetrics.aspect_reward.members(metrics)
        table.add_row(
            index_of(iteration, status),
            _number(iteration.reward),
            *(_number(scores.get(aspect)) for aspect in aspects),
            _number(metrics.get(JudgeMetrics.canary_auc), 2),
            describe_win_rate(iteration),
        )
    return table


def _evaluation_table(status: AlignmentRunStatus) -> Table:
    """Win rates at equal length and over the predecessor, rating, and what became of general capability."""
    table = plain_table("iteration", "equal length", "over previous", "rating", "capability", "change against base")
    for iteration in status.iterations:
        metrics = numbers_of(iteration)
        table.add_row(
            index_of(iteration, status),
            _number(metrics.get(EvaluateMetrics.win_rate_lc.value), 2),
            _number(metrics.get(EvaluateMetrics.win_rate_previous.value), 2),
            _number(metrics.get(EvaluateMetrics.rating.value), 0),
            _number(iteration.capability.value if iteration.capability else None),
            describe_capability(iteration),
        )
    return table


def _held_out_table(status: AlignmentRunStatus) -> Table:
    """The run's reward on the same prompts by the same judges in every iteration, and against the base model's."""
    table = plain_table("iteration", "reward held out", "change against base")
    for iteration in status.iterations:
        metrics = numbers_of(iteration)
        found = (EvaluateMetrics.held_out_reward.join(metrics), EvaluateMetrics.held_out_reward_delta.join(metrics))
        texts = (
            _NONE if value is None else value.text(spec) for value, spec in zip(found, (".3f", "+.3f"), strict=True)
        )
        table.add_row(index_of(iteration, status), *texts)
    return table


def _trust_table(status: AlignmentRunStatus) -> Table:
    table = plain_table("judge", "attacks", "margin", "agrees", "ends", "failed", "fit")
    for iteration in status.iterations:
        metrics = numbers_of(iteration)
        table.add_row(
            index_of(iteration, status),
            _number(metrics.get(JudgeMetrics.injection_auc), 2),
            _number(metrics.get(JudgeMetrics.injection_margin)),
            _number(metrics.get(JudgeMetrics.judge_tau), 2),
            _number(metrics.get(JudgeMetrics.ends_share), 2),
            _number(metrics.get(JudgeMetrics.failed_share), 2),
            _fitness(metrics),
        )
    return table


def _fitness(metrics: Measured) -> str:
    """`yes`, `no` where the run went on with an unfit judge, `base` where the base model took its place."""
    unfit = metrics.get(JudgeMetrics.unfit)
    if unfit is None:
        return _NONE
    if unfit:
        return "no"
    return "base" if metrics.get(JudgeMetrics.fallback) else "yes"


def _effort_table(status: AlignmentRunStatus) -> Table:
    table = plain_table("iteration", "tokens", "KL", *map(str, ITERATION_STAGES))
    for iteration in status.iterations:
        metrics = numbers_of(iteration)
        seconds = {entry.stage: seconds_of(entry) for entry in iteration.stages}
        table.add_row(
            index_of(iteration, status),
            _whole(metrics.get(TrainMetrics.loss_tokens)),
            _number(metrics.get(TrainMetrics.kl), 4),
            *(describe_seconds(seconds.get(stage)) for stage in ITERATION_STAGES),
        )
    return table


def _start_table(status: AlignmentRunStatus) -> Table:
    """Start-up of every stage; those of the run itself stand in the first and the last line."""
    has_rollouts = any(entry.stage is Stage.ROLLOUT for iteration in status.iterations for entry in iteration.stages)
    left_out = SIDE_STAGES if has_rollouts else SIDE_STAGES | {Stage.ROLLOUT}
    stages = [stage for stage in Stage if stage not in left_out]
    table = plain_table("start-up", *map(str, stages))
    last = len(status.iterations) - 1
    for row, iteration in enumerate(status.iterations):
        entries = [
            *([status.fetch] if row == 0 else []),
            *iteration.stages,
            *([status.export] if row == last else []),
        ]
        seconds = {entry.stage: _start_of(entry) for entry in entries if entry is not None}
        cells = (describe_seconds(seconds[stage]) if stage in seconds else "" for stage in stages)
        table.add_row(index_of(iteration, status), *cells)
    return table


def _goodput_table(status: AlignmentRunStatus, goodput: Goodput) -> Table:
    """What the devices' time was used for, an iteration a line; `all` counts those of which no stages are kept too."""
    unit = "GPU" if goodput.unit is DeviceUnit.GPU else "pod"
    table = plain_table(f"{unit} time", *(name for name in goodput.seconds.figures), "goodput")
    lines = [(index_of(iteration, status), iteration_seconds(iteration)) for iteration in status.iterations]
    for name, seconds in (*lines, ("all", goodput.seconds)):
        if seconds is not None:
            table.add_row(name, *_device_times(seconds))
    return table


def _device_times(seconds: DeviceTime) -> tuple[str, ...]:
    share = _NONE if seconds.goodput is None else f"{seconds.goodput:.0%}"
    return (*(describe_seconds(getattr(seconds, name)) for name in seconds.figures), share)


def _start_of(entry: StageStatus) -> float | None:
    return read_metrics(entry.stage, entry.metrics).get(STAGE_METRICS[entry.stage].start_seconds)


def plain_table(*headings: str) -> Table:
    """A table without lines, its columns at the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def index_of(iteration: IterationStatus, status: AlignmentRunStatus) -> str:
    """The iteration's number, `*` behind that of the best one."""
    return f"{iteration.index}{' *' if status.best and status.best.iteration == iteration.index else ''}"


def progress_table(run: AlignmentRun, latest: int | None = None) -> Table:
    """One line an iteration, of `latest` ones alone where that is given: its stages with marks, and the win rate."""
    iterations = run.status.iterations
    total = max(run.spec.iterations, len(iterations))
    table = Table(box=None, pad_edge=False, show_header=False)
    for iteration in iterations[-latest:] if latest else iterations:
        phases = {entry.stage: entry.phase for entry in shown_stages(run, iteration)}
        marks = (f"{MARKS[phases.get(stage, StagePhase.PENDING)]} {stage}" for stage in ITERATION_STAGES)
        table.add_row(
            f"iteration {iteration.index + 1}/{total}",
            *marks,
            f"wins {iteration.win_rate.value:.0%}" if iteration.win_rate is not None else "",
        )
    return table


def conditions_table(status: AlignmentRunStatus) -> Table:
    """Conditions with their messages."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("condition", "status", "reason", "message"):
        table.add_column(heading, overflow="fold")
    for condition in status.conditions:
        table.add_row(str(condition.type), condition.status, condition.reason, condition.message)
    return table


def _number(value: float | None, digits: int = 3) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _whole(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.0f}"
