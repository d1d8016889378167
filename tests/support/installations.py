"""The wheel of this tree, and empty environments that it is installed into, as people do it."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import CACHE

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
"""Variables by which the environment of the tests would reach into another one."""


@dataclass(frozen=True)
class Installation:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def dynalign(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the script `dynalign` of this environment."""
        return call(self.folder / "bin" / "dynalign", *arguments, cwd=cwd)

    def modules(self) -> set[str]:
        """Names of what can be imported beside the standard library."""
        found = check(self.python, "-c", "import pkgutil; print(*{m.name for m in pkgutil.iter_modules()})")
        return set(found.split())


def call(program: str | Path, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program without what the tests' own environment sets."""
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=1100, check=False)


def check(program: str | Path, *arguments: str | Path, cwd: Path | None = None) -> str:
    """Output of a program that has to succeed."""
    result = call(program, *arguments, cwd=cwd)
    assert result.returncode == 0, f"{program} {arguments}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def build_wheel(folder: Path) -> Path:
    """Build the source distribution, and the wheel from it, as a release does."""
    check(UV, "build", "--quiet", "--out-dir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install_with_pip(folder: Path, *arguments: str | Path) -> Installation:
    """`python -m venv` and `pip install`."""
    check(sys.executable, "-m", "venv", folder)
    check(folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)
    return Installation(folder)


def install_with_uv(folder: Path, *arguments: str | Path) -> Installation:
    """`uv venv` and `uv pip install`."""
    check(UV, "venv", "--quiet", "--python", sys.executable, folder)
    check(UV, "pip", "install", "--quiet", "--python", folder, *arguments)
    return Installation(folder)


INSTALLERS: dict[str, Callable[..., Installation]] = {"pip": install_with_pip, "uv": install_with_uv}


def triton_folder() -> Path:
    """A folder with the Triton of requirements/gpu.txt, which the environment for CPUs leaves out; for a PYTHONPATH.

    It is fetched from the package index once, and kept.
    """
    (pin,) = re.findall(r"^triton==([^ ;]+)", (ROOT / "requirements" / "gpu.txt").read_text(), re.MULTILINE)
    folder = CACHE / f"triton-{pin}-python-{sys.version_info.major}.{sys.version_info.minor}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            target = Path(name) / "whole"
            check(
                UV,
                "pip",
                "install",
                "--quiet",
                "--python",
                sys.executable,
                "--no-deps",
                "--target",
                target,
                f"triton=={pin}",
            )
            with contextlib.suppress(OSError):  # another run was first
                target.rename(folder)
    return folder
