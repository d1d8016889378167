"""Distributions with rewards, as an installer leaves them in a folder of packages."""

import sys
from pathlib import Path

import pytest

from dynalign_contract.reward_protocol import ENTRY_POINTS


def write_distribution(
    folder: Path,
    code: str,
    *,
    distribution: str = "own-rewards",
    version: str = "1.2.3",
    group: str = ENTRY_POINTS,
    **entry_points: str,
) -> Path:
    """A folder of packages with a distribution whose module has this code.

    `entry_points` are names with functions of the module.
    """
    module = distribution.replace("-", "_")
    packages = folder / f"{distribution}-packages"
    info = packages / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (packages / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = [f"{name} = {module}:{function}" for name, function in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    return packages


def install_rewards(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, *, distribution: str = "own-rewards", **more: str
) -> None:
    """Write a distribution as `write_distribution` does, and put it on this process's path."""
    packages = write_distribution(folder, code, distribution=distribution, **more)
    monkeypatch.delitem(sys.modules, distribution.replace("-", "_"), raising=False)  # of another test
    monkeypatch.syspath_prepend(packages)
