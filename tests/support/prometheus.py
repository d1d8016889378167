"""A real Prometheus that scrapes every second: the Debian package that tests/cluster/build.sh installs."""

import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.cluster import built_tools
from lab.processes import free_port, running

_ROOT = Path(__file__).parents[2]
HOUR = "[1h:1s]"
"""The range of a subquery over all that these tests scrape."""
PATIENCE = 60.0
"""Seconds for Prometheus to come up, and for a series to appear or to go."""


@dataclass(frozen=True)
class Sample:
    """One element of an instant vector."""

    labels: Mapping[str, str]
    """Without `__name__`."""
    value: float


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, expression: str) -> list[Sample]:
        """The instant vector (a scalar as one sample without labels) that an expression has now."""
        data = self._get("query", query=expression)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [
            Sample({k: v for k, v in entry["metric"].items() if k != "__name__"}, float(entry["value"][1]))
            for entry in data["result"]
        ]

    def await_samples(self, expression: str) -> list[Sample]:
        """Query until the answer is not empty."""
        end = time.monotonic() + PATIENCE
        while not (found := self.query(expression)):
            assert time.monotonic() < end, f"{expression} had no value within {PATIENCE} s"
            time.sleep(0.2)  # between two scrapes
        return found

    def await_silence(self, expression: str) -> None:
        """Query until the answer is empty."""
        end = time.monotonic() + PATIENCE
        while found := self.query(expression):
            assert time.monotonic() < end, f"{expression} still had {found} after {PATIENCE} s"
            time.sleep(0.2)  # between two scrapes

    def unhealthy_rules(self) -> dict[str, str]:
        """Rules that have not been evaluated without an error yet, and what Prometheus says of them."""
        groups: list[dict[str, Any]] = self._get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return {rule["name"]: rule.get("lastError", rule["health"]) for rule in rules if rule["health"] != "ok"}

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            raise AssertionError(f"Prometheus refuses {parameters}: {error.read().decode()}") from error


@contextmanager
def start_prometheus(
    folder: Path, targets: Mapping[str, Sequence[str]], rules: Sequence[Path] = ()
) -> Iterator[Prometheus]:
    """Scrape these targets (job -> `host:port`s) and evaluate these rule files, both every second.

    Labels that a target gives its series win over the scrape's own, as in the chart's ServiceMonitor.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump(build_config(targets, rules)))
    port = free_port()
    command = [
        find_tool("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with running(folder, command, "prometheus"):
        _await_ready(f"http://127.0.0.1:{port}/-/ready", folder)
        yield Prometheus(f"http://127.0.0.1:{port}")


def documented_series() -> Iterator[str]:
    """Every series that docs/reference/metrics.md promises; a histogram by its count."""
    page = (_ROOT / "docs" / "reference" / "metrics.md").read_text()
    for name, kind in re.findall(r"^\| `(\w+)` \| (gauge|counter|histogram) \|", page, re.MULTILINE):
        yield f"{name}_count" if kind == "histogram" else name


def build_config(targets: Mapping[str, Sequence[str]], rules: Sequence[Path] = ()) -> dict[str, object]:
    """Prometheus' configuration."""
    jobs = [
        {"job_name": job, "honor_labels": True, "static_configs": [{"targets": list(addresses)}]}
        for job, addresses in targets.items()
    ]
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": jobs,
    }


def find_tool(name: str) -> str:
    """`prometheus` or `promtool`."""
    built_tools()
    found = shutil.which(name)
    assert found, f"there is no {name}: tests/cluster/build.sh should have installed Debian's package prometheus"
    return found


def _await_ready(url: str, folder: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < end, f"Prometheus is not ready; see {folder / 'prometheus.log'}"
            time.sleep(0.1)  # between two looks at it
