"""The version: pyproject.toml is the source, and every other place that states it is listed here."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VERSION: Final = r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?"


@dataclass(frozen=True)
class Place:
    """A file that states the version, once or several times."""

    path: str
    pattern: str
    """Regular expression whose only group is the version."""


SOURCE: Final = Place("pyproject.toml", rf'^version = "({VERSION})"$')

_IMAGE: Final = rf"\bdynalign-(?:operator|trainer):({VERSION})\b"

COPIES: Final = (
    Place("charts/dynalign/Chart.yaml", rf"^version: ({VERSION})$"),
    Place("charts/dynalign/Chart.yaml", rf'^appVersion: "({VERSION})"$'),
    Place("images/operator/Dockerfile", rf"^ARG VERSION=({VERSION})$"),
    Place("images/trainer/Dockerfile", rf"^ARG VERSION=({VERSION})$"),
    Place("operator/dynalign_operator/manifests/build_settings.py", rf'"dynalign-trainer:({VERSION})"'),
    *(Place(page, _IMAGE) for page in ("README.md", "images/README.md", "docs/kubernetes.md", "docs/rewards.md")),
    Place("images/README.md", rf"\bdynalign-(?:operator|trainer)-({VERSION})-context\.tar\.gz\b"),
)


def read_version(root: Path) -> str:
    """The project's version."""
    project = tomllib.loads((root / SOURCE.path).read_text())["project"]
    return str(project["version"])


def find_disagreements(root: Path) -> Iterator[str]:
    """One sentence for every place that does not state the project's version, or states none."""
    wanted = read_version(root)
    for place in COPIES:
        text = (root / place.path).read_text()
        found = re.findall(place.pattern, text, re.MULTILINE)
        if not found:
            yield f"{place.path}: nothing matches {place.pattern}; correct it, or the list in release/version.py"
        for version in sorted({*found} - {wanted}):
            yield f"{place.path} says {version}, pyproject.toml {wanted}; run: make version VERSION={wanted}"


def write_version(root: Path, version: str) -> None:
    """State the version everywhere. Raises ValueError for a text that is not one."""
    if not re.fullmatch(VERSION, version):
        raise ValueError(f"{version!r} is not a version; write X.Y.Z, or X.Y.Zrc1 for a candidate")
    for place in (SOURCE, *COPIES):
        path = root / place.path
        path.write_text(
            re.sub(place.pattern, lambda m: m[0].replace(m[1], version), path.read_text(), flags=re.MULTILINE)
        )
