"""The report's plots as values: which metrics belong together, and their points over the iterations of each run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from dynalign_contract.estimate import Estimate
from dynalign_contract.metrics import (
    EvaluateMetrics,
    GenerateMetrics,
    IntervalDef,
    IntervalFamily,
    JudgeMetrics,
    MetricDef,
    MetricFamily,
    PromptsMetrics,
    TrainMetrics,
    Unit,
)
from dynalign_contract.stages import Stage
from dynalign_report.facts import Numbers, ReportedRun

Definition = MetricDef[Any] | MetricFamily[Any] | IntervalDef[Any] | IntervalFamily[Any]


class Section(StrEnum):
    """The questions that a report answers by plots; the value is the section's id in the page."""

    WORKED = "worked"
    WHY = "why"
    JUDGE = "judge"
    COST = "cost"


class Kind(StrEnum):
    """How a chart is drawn."""

    LINE = "line"
    STACKED_BARS = "bar"


@dataclass(frozen=True)
class ChartSpec:
    """Metrics of one unit that are drawn into one chart."""

    section: Section
    title: str
    metrics: tuple[Definition, ...]
    reference: float | None = None
    """Value of a horizontal line that points are read against, such as 0.5 of a win rate."""
    kind: Kind = Kind.LINE
    names: tuple[str, ...] = ()
    """Labels of the metrics; by default their names. A chart of a single metric needs none."""


@dataclass(frozen=True)
class Line:
    """One series: the value of each iteration, with its interval where there is one."""

    label: str
    points: Mapping[int, Estimate]
    """Iteration -> value."""
    run: str = ""
    """Label of its run in a report of several."""


@dataclass(frozen=True)
class Chart:
    """A chart that has at least one point."""

    section: Section
    title: str
    text: str
    """What the numbers mean."""
    unit: str
    lines: tuple[Line, ...]
    reference: float | None = None
    kind: Kind = Kind.LINE

    @property
    def iterations(self) -> tuple[int, ...]:
        """Every iteration that has a point."""
        return tuple(sorted({iteration for line in self.lines for iteration in line.points}))


SPECS: Final = (
    ChartSpec(Section.WORKED, "Held-out win rate against the base model", (EvaluateMetrics.win_rate,), 0.5),
    ChartSpec(Section.WORKED, "Reward of held-out answers", (EvaluateMetrics.held_out_reward,)),
    ChartSpec(Section.WORKED, "Held-out reward, change", (EvaluateMetrics.held_out_reward_delta,), 0.0),
    ChartSpec(Section.WORKED, "Capability, change", (EvaluateMetrics.capability_delta,), 0.0),
    ChartSpec(Section.WORKED, "Win rate at equal length", (EvaluateMetrics.win_rate_lc,), 0.5),
    ChartSpec(Section.WORKED, "Win rate against the previous policy", (EvaluateMetrics.win_rate_previous,), 0.5),
    ChartSpec(Section.WORKED, "Verifiers on held-out answers, change", (EvaluateMetrics.verifier_delta,), 0.0),
    ChartSpec(Section.WORKED, "Scores of tasks, change", (EvaluateMetrics.task_delta,), 0.0),
    ChartSpec(Section.WORKED, "Rating", (EvaluateMetrics.rating,), 0.0),
    ChartSpec(Section.WHY, "Training reward", (JudgeMetrics.reward,)),
    ChartSpec(Section.WHY, "Training reward by aspect", (JudgeMetrics.aspect_reward,)),
    ChartSpec(Section.WHY, "Training reward by verifier", (JudgeMetrics.verifier_reward,)),
    ChartSpec(
        Section.WHY,
        "Spread of rewards",
        (JudgeMetrics.group_std, JudgeMetrics.reward_std),
        names=("within a group", "over all answers"),
    ),
    ChartSpec(
        Section.WHY,
        "Groups that teach nothing",
        (TrainMetrics.dropped_groups_share, TrainMetrics.noisy_groups_share),
        names=("all that teach nothing", "spread within the noise"),
    ),
    ChartSpec(
        Section.WHY,
        "Length of answers",
        (GenerateMetrics.mean_length, GenerateMetrics.mean_thought_length),
        names=("answer", "thought"),
    ),
    ChartSpec(Section.WHY, "Answers cut off", (GenerateMetrics.truncated_share,)),
    ChartSpec(Section.WHY, "KL divergence", (TrainMetrics.kl,)),
    ChartSpec(Section.WHY, "Entropy of the policy", (TrainMetrics.entropy,)),
    ChartSpec(Section.WHY, "Tokens clipped", (TrainMetrics.clip_share,)),
    ChartSpec(Section.WHY, "Norm of the gradient", (TrainMetrics.grad_norm,)),
    ChartSpec(
        Section.JUDGE,
        "Real answers against worthless ones and attacks",
        (JudgeMetrics.canary_auc, JudgeMetrics.injection_auc),
        0.5,
        names=("canaries", "injections"),
    ),
    ChartSpec(Section.JUDGE, "Agreement with the base model as judge", (JudgeMetrics.judge_tau,), 0.0),
    ChartSpec(Section.JUDGE, "Length and reward", (JudgeMetrics.length_correlation,), 0.0),
    ChartSpec(
        Section.JUDGE,
        "Scores that say little",
        (JudgeMetrics.failed_share, JudgeMetrics.ends_share),
        names=("no reward", "at an end of the scale"),
    ),
    ChartSpec(Section.JUDGE, "Verdicts that the order decides", (EvaluateMetrics.order_flips,)),
    ChartSpec(Section.JUDGE, "Rewards by judge", (JudgeMetrics.judge_reward,)),
    ChartSpec(Section.JUDGE, "Canaries by judge", (JudgeMetrics.judge_canary_auc,), 0.5),
    ChartSpec(Section.JUDGE, "Injections by judge", (JudgeMetrics.judge_injection_auc,), 0.5),
    ChartSpec(Section.JUDGE, "Agreement of each judge with the others", (JudgeMetrics.judge_agreement,), 0.0),
    ChartSpec(Section.JUDGE, "Disagreement of the judges", (JudgeMetrics.disagreement,)),
    ChartSpec(
        Section.COST,
        "Tokens by stage",
        (
            PromptsMetrics.tokens,
            GenerateMetrics.tokens,
            TrainMetrics.loss_tokens,
            JudgeMetrics.judge_tokens,
            EvaluateMetrics.judge_tokens,
        ),
        kind=Kind.STACKED_BARS,
        names=("prompts", "generate", "train", "judge, outside", "evaluate, outside"),
    ),
)
"""Every chart of a report, in its order."""


def build_charts(runs: Sequence[ReportedRun]) -> tuple[Chart, ...]:
    """The charts that have any point in these runs, then the seconds of each stage.

    Of several runs, bars are sums over stages, one bar a run: stages of all of them would be too many to tell apart.
    """
    numbers = [(run.label if len(runs) > 1 else "", run.numbers) for run in runs]
    charts = [chart for spec in SPECS if (chart := _build(spec, numbers)) is not None]
    if (seconds := _seconds(runs)) is not None:
        charts.append(seconds)
    return tuple(charts if len(runs) == 1 else map(_sum_bars, charts))


def _sum_bars(chart: Chart) -> Chart:
    """The chart with one bar for each run; a chart of lines as it is."""
    if chart.kind is Kind.LINE:
        return chart
    totals: dict[str, dict[int, Estimate]] = {}
    for line in chart.lines:
        total = totals.setdefault(line.run, {})
        for iteration, point in line.points.items():
            before = total[iteration].value if iteration in total else 0.0
            total[iteration] = Estimate(value=before + point.value)
    title = chart.title.replace(" by stage", ", all stages")
    return replace(chart, title=title, lines=tuple(Line(run, points, run) for run, points in totals.items()))


def _build(spec: ChartSpec, numbers: Sequence[tuple[str, Mapping[int, Numbers]]]) -> Chart | None:
    found = [
        (metric, Line(_joined(run, label), points, run))
        for run, by_iteration in numbers
        for index, metric in enumerate(spec.metrics)
        for label, points in _lines_of(metric, _label(spec, index), by_iteration)
    ]
    if not found:
        return None
    return Chart(
        section=spec.section,
        title=spec.title,
        text=" ".join(dict.fromkeys(_text(metric) for metric, _ in found)),
        unit=_unit(spec.metrics[0]),
        lines=tuple(line for _, line in found),
        reference=spec.reference,
        kind=spec.kind,
    )


def _label(spec: ChartSpec, index: int) -> str:
    if spec.names:
        return spec.names[index]
    return "" if len(spec.metrics) == 1 else _name(spec.metrics[index])


def _lines_of(
    metric: Definition, label: str, numbers: Mapping[int, Numbers]
) -> Iterator[tuple[str, Mapping[int, Estimate]]]:
    """Label and points of the metric itself, or of each member of a family."""
    found: dict[str, dict[int, Estimate]] = {}
    for iteration, values in numbers.items():
        for member, estimate in _estimates(metric, values).items():
            found.setdefault(member, {})[iteration] = estimate
    for member, points in found.items():
        yield _joined(label, member), points


def _estimates(metric: Definition, values: Numbers) -> dict[str, Estimate]:
    """Member -> estimate; the member of a single metric is empty."""
    match metric:
        case IntervalFamily():
            return metric.members(values)
        case MetricFamily():
            return {member: Estimate(value=value) for member, value in metric.members(values).items()}
        case IntervalDef():
            joined = metric.join(values)
            return {} if joined is None else {"": joined}
        case MetricDef():
            return {"": Estimate(value=values[metric])} if metric in values else {}


def _name(metric: Definition) -> str:
    single = metric.value if isinstance(metric, IntervalDef | IntervalFamily) else metric
    return single.name.replace("_", " ")


def _text(metric: Definition) -> str:
    return metric.each.text if isinstance(metric, MetricFamily) else metric.text


def _unit(metric: Definition) -> str:
    unit = metric.each.unit if isinstance(metric, MetricFamily) else metric.unit
    return "" if unit is Unit.PLAIN else str(unit)


def _joined(*labels: str) -> str:
    return ", ".join(label for label in labels if label)


def _seconds(runs: Sequence[ReportedRun]) -> Chart | None:
    points: dict[tuple[str, Stage], dict[int, Estimate]] = {}
    for run in runs:
        for entry in run.stages:
            if entry.iteration is not None and entry.seconds is not None:
                place = points.setdefault((run.label if len(runs) > 1 else "", entry.stage), {})
                place[entry.iteration] = Estimate(value=entry.seconds)
    if not points:
        return None
    return Chart(
        section=Section.COST,
        title="Time by stage",
        text="From a stage's first start to its end, repeated attempts and waiting included.",
        unit=str(Unit.SECONDS),
        lines=tuple(Line(_joined(run, str(stage)), found, run) for (run, stage), found in points.items()),
        kind=Kind.STACKED_BARS,
    )


def stage_seconds(run: ReportedRun) -> dict[Stage, float]:
    """Stage -> seconds over all iterations, in the order of stages."""
    total: dict[Stage, float] = {}
    for stage in Stage:
        seconds = [entry.seconds for entry in run.stages if entry.stage is stage and entry.seconds is not None]
        if seconds:
            total[stage] = sum(seconds)
    return total
