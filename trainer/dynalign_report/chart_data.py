"""Charts as the JSON that the scripts of the report and of the live page draw."""

from typing import Any

from dynalign_report.charts import Chart


def chart_data(chart: Chart) -> dict[str, Any]:
    """Title, text, unit, kind and reference of a chart, and of each line the iterations, values and intervals."""
    return {
        "title": chart.title,
        "text": chart.text,
        "unit": chart.unit,
        "kind": chart.kind.value,
        "reference": chart.reference,
        "lines": [
            {
                "label": line.label,
                "x": list(line.points),
                "y": [point.value for point in line.points.values()],
                "low": [point.low for point in line.points.values()],
                "high": [point.high for point in line.points.values()],
            }
            for line in chart.lines
        ],
    }
