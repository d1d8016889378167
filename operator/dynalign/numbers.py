"""The metrics of a run as a table and as plots."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dynalign_report.facts import ReportedRun, StageFacts

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

_PLOT_HEIGHT: Final = 260
"""Pixels of one plot."""


def table_of(stages: Sequence[StageFacts]) -> "pandas.DataFrame":
    """A row for each iteration, a column `stage.metric` for each metric; NaN where a stage has not reported it."""
    import pandas

    rows: dict[int, dict[str, float]] = {}
    for entry in stages:
        if entry.iteration is not None:
            row = rows.setdefault(entry.iteration, {})
            row |= {f"{entry.stage}.{one.name}": one.value for one in entry.metrics if one.value is not None}
    table = pandas.DataFrame.from_dict(rows, orient="index").sort_index()
    return table.rename_axis("iteration")


def plot_of(run: ReportedRun, section: str) -> "Figure":
    """The report's plots of one section, with intervals as error bars. Raises ValueError where there is none."""
    from plotly.graph_objects import Figure, Scatter
    from plotly.subplots import make_subplots

    from dynalign_report.charts import Section, build_charts

    if section not in {str(known) for known in Section}:
        raise ValueError(f"section is {section!r}; write one of {', '.join(map(str, Section))}")
    charts = [chart for chart in build_charts([run]) if chart.section == section]
    if not charts:
        raise ValueError(f"{run.facts.name} has reported nothing that the section {section!r} shows")
    figure: Figure = make_subplots(rows=len(charts), cols=1, subplot_titles=[chart.title for chart in charts])
    for row, chart in enumerate(charts, 1):
        for line in chart.lines:
            points = sorted(line.points.items())
            bounds = [(point.low, point.high, point.value) for _, point in points]
            bars = {
                "type": "data",
                "symmetric": False,
                "array": [0 if high is None else high - value for _, high, value in bounds],
                "arrayminus": [0 if low is None else value - low for low, _, value in bounds],
                "visible": any(low is not None for low, _, _ in bounds),
            }
            series = Scatter(
                x=[iteration for iteration, _ in points],
                y=[point.value for _, point in points],
                error_y=bars,
                name=line.label or chart.title,
                showlegend=bool(line.label),
                mode="lines+markers",
            )
            figure.add_trace(series, row=row, col=1)
        if chart.reference is not None:
            figure.add_hline(chart.reference, line_dash="dot", row=row, col=1)
        figure.update_yaxes(title_text=chart.unit, row=row, col=1)
    figure.update_xaxes(title_text="iteration", dtick=1)
    return figure.update_layout(height=_PLOT_HEIGHT * len(charts), title_text=run.facts.name)
