"""The chart as helm renders it."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from lab.cluster import built_tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "dynalign"
KUBERNETES = "1.35.0"
NAMESPACE = "dynalign-system"

Objects = list[dict[str, Any]]


def run_helm(command: list[str], values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the helm that tests/cluster/build.sh makes."""
    return subprocess.run(
        [str(built_tools() / "helm"), *command, "--kube-version", KUBERNETES, "--values", "-"],
        input=yaml.safe_dump(values or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def render(values: dict[str, Any] | None = None, *, release: str = "dynalign", namespace: str = NAMESPACE) -> Objects:
    """The objects of a release with these values."""
    result = run_helm(["template", release, str(CHART), "--namespace", namespace], values)
    assert result.returncode == 0, result.stderr
    return [thing for thing in yaml.safe_load_all(result.stdout) if thing]


def of_kind(objects: Objects, *kinds: str) -> Objects:
    """The objects of these kinds."""
    return [thing for thing in objects if thing["kind"] in kinds]


def only(objects: Objects, kind: str) -> dict[str, Any]:
    """The one object of this kind."""
    (thing,) = of_kind(objects, kind)
    return thing
