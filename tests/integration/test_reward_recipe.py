"""The recipe of docs/rewards.md for a reward of one's own: its package is installed and found, as in an image."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "rewards.md"
IMAGE_PYTHON, IMAGE_SOURCE = "/opt/venv/bin/python", "/src/my_rewards"
SCORE = """
import json, sys
from dynalign_trainer.verifiers.entry_points import find_installed_reward
found = find_installed_reward("politeness", "rewards[0].entryPoint")
print(json.dumps([found.distribution, found.version, found.function(json.load(sys.stdin))]))
"""


def block(language: str) -> str:
    """The page's only block in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that has what this one has, and the package by the Dockerfile's own line."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "my_rewards").mkdir()
    (folder / "my_rewards" / "pyproject.toml").write_text(block("toml"))
    (folder / "my_rewards" / "my_rewards.py").write_text(block("python"))
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    (packages,) = (folder / "venv" / "lib").glob("*/site-packages")
    (packages / "base.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    (line,) = re.findall(r"^RUN pip (.*)$", block("dockerfile"), flags=re.MULTILINE)
    assert IMAGE_PYTHON in line
    assert IMAGE_SOURCE in line
    arguments = line.replace(IMAGE_PYTHON, str(python)).replace(IMAGE_SOURCE, str(folder / "my_rewards")).split()
    # A test asks no registry: setuptools, which builds the package, is the one that is installed.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return python


@pytest.fixture
def run_file(tiny_model: Path, tmp_path: Path) -> Path:
    (tmp_path / "model").symlink_to(tiny_model)
    spec: dict[str, Any] = {
        "model": {"uri": "./model"},
        "rewards": [{"name": "politeness", "type": "Python", "entryPoint": "politeness", "weight": 0.5}],
        "prompts": {"perIteration": 4, "heldOut": 1, "maxTokens": 64},
        "generation": {"maxTokens": 24},
        "evaluation": {"winRate": {"method": "Pointwise"}},
    }
    run = {"apiVersion": "dynalign.io/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": "r"}, "spec": spec}
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    return tmp_path / "run.yaml"


def validate(python: Path | str, run_file: Path) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-c", "from dynalign_operator.cli.main import main; main()", "validate", str(run_file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_validate_misses_the_package_where_it_is_not_installed_and_finds_it_where_it_is(
    image: Path, run_file: Path
) -> None:
    words = "no package in this image registers politeness"
    elsewhere, here = validate(sys.executable, run_file), validate(image, run_file)
    assert words in elsewhere.stderr
    assert words not in here.stderr
    assert (elsewhere.returncode, here.returncode) == (0, 0), here.stderr


def test_the_stages_find_the_function_and_it_does_what_the_page_says(image: Path) -> None:
    request = {"items": [{"answer": "Please, sit down."}, {"answer": "Sit down."}]}
    command = [str(image), "-c", SCORE]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=600, check=True)
    assert json.loads(done.stdout) == ["my-rewards", "1.0.0", [1.0, 0.0]]
