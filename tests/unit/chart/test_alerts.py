"""The alerts as Prometheus' own tool sees them."""

import subprocess
from pathlib import Path

import pytest
import yaml

from support.chart import CHART, ROOT, only, render
from support.prometheus import find_tool

pytestmark = pytest.mark.cluster

RULES = {"metrics": {"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}}}


def promtool(*arguments: str) -> str:
    command = [find_tool("promtool"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("release", ["dynalign", "x" * 53])
def test_the_rendered_rules_are_valid(release: str, tmp_path: Path) -> None:
    rule = only(render(RULES, release=release), "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rule["spec"]))
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert f"{len(alerts)} rules found" in promtool("check", "rules", str(path))


def test_the_operator_that_is_looked_for_is_the_release_s_own() -> None:
    rule = only(render(RULES, release="a", namespace="system"), "PrometheusRule")
    (down,) = (alert for group in rule["spec"]["groups"] for alert in group["rules"] if "absent" in alert["expr"])
    assert down["expr"] == 'absent(up{job="a-dynalign",namespace="system"} == 1)'


def test_the_rules_as_they_lie_in_the_chart_are_valid() -> None:
    promtool("check", "rules", str(CHART / "files" / "alerts.yaml"))


def test_what_fires_and_what_does_not() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(ROOT / "tests" / "data" / "alerts_test.yaml"))
