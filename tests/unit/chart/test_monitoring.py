"""Alerts, dashboard and network policy name only what there is."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml

from dynalign_contract.pod_paths import METRICS_PORT
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import ConditionType, Phase
from dynalign_operator.metrics.operator import OPERATOR_METRICS
from dynalign_operator.metrics.runs import RUN_METRICS
from support.chart import CHART, ROOT

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [
    alert
    for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    for alert in group["rules"]
]
LABELS = {series: set(metric.labels) for metric in (*OPERATOR_METRICS, *RUN_METRICS) for series in metric.series}
SCRAPED = {"job", "instance", "le"}
"""Labels that come from Prometheus, and a histogram's own."""
PROMETHEUS_OWN = {"up": {"job"}}
VALUES: dict[str, set[str]] = {"condition": set(ConditionType), "phase": set(Phase), "stage": set(Stage)}


def expressions() -> Iterator[Any]:
    for alert in ALERTS:
        yield pytest.param(alert["expr"], id=alert["alert"])
    for panel in PANELS:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_names_metrics_and_labels_that_exist(expression: str) -> None:
    selectors = re.findall(r"\b(dynalign_\w+|up)\b(?:\{([^}]*)\})?", expression)
    assert selectors, "an expression without a metric is always empty"
    for name, matchers in selectors:
        known = (LABELS | PROMETHEUS_OWN).get(name)
        assert known is not None, f"the operator has no series {name}"
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            assert label in known, f"{name} has no label {label}"
            if label in VALUES:
                assert set(values.split("|")) <= VALUES[label]
    grouped = {
        label.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in group.split(",")
    }
    assert grouped <= SCRAPED.union(*(LABELS[name] for name, _ in selectors if name in LABELS))


def test_legends_name_labels_that_the_series_have() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            names = re.findall(r"\bdynalign_\w+", target["expr"])
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= LABELS[names[0]], panel["title"]


def test_the_dashboard_shows_what_the_design_asks_for() -> None:
    shown = {
        name
        for panel in PANELS
        for target in panel["targets"]
        for name in re.findall(r"\bdynalign_\w+", target["expr"])
    }
    assert {series for metric in RUN_METRICS for series in metric.series} <= shown
    assert {
        "dynalign_reconcile_seconds_bucket",
        "dynalign_stage_transition_seconds_bucket",
        "dynalign_queue_depth",
        "dynalign_queue_age_seconds",
    } <= shown


def test_no_panel_covers_another() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)

    def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        return {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}

    for one, other in combinations(DASHBOARD["panels"], 2):
        assert not cells(one) & cells(other), (one["title"], other["title"])
    assert all(x < 24 for panel in DASHBOARD["panels"] for x, _ in cells(panel))


def test_the_runbook_has_every_alert() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    assert [alert["alert"] for alert in ALERTS if f"`{alert['alert']}`" not in runbook] == []


def test_every_alert_says_what_and_what_to_do() -> None:
    for alert in ALERTS:
        assert set(alert["annotations"]) == {"summary", "description"}
        assert alert["labels"]["severity"] in {"warning", "critical"}


def test_the_operator_may_reach_the_port_that_stages_serve() -> None:
    text = (CHART / "templates" / "networkpolicy.yaml").read_text()
    assert f"{{port: {METRICS_PORT}, protocol: TCP}}" in text
