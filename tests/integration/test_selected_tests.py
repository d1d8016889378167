"""Which tests the targets of the Makefile select where there is no GPU."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
ON_GPUS = re.compile(r"^test-gpu:.*\n(?:\t.*\n)+", re.MULTILINE)
SELECTIONS = re.findall(r'(?:pytest|\(PYTEST\)).*? -m (?:"([^"\n]+)"|(\w+))', ON_GPUS.sub("", MAKEFILE))
NOTHING_COLLECTED = 5


def collected(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        *arguments,
        "tests/gpu",
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("expression", sorted({quoted or word for quoted, word in SELECTIONS}))
def test_no_other_target_selects_a_test_that_needs_a_gpu(expression: str) -> None:
    found = collected("-m", expression)
    assert found.returncode == NOTHING_COLLECTED, f"{found.stdout}{found.stderr}"


def test_test_gpu_selects_all_of_them_and_says_what_it_needs_where_there_is_none() -> None:
    (recipe,) = ON_GPUS.findall(MAKEFILE)
    assert "-m gpu tests/gpu" in recipe
    assert "lab.gpus" in recipe
    everything, marked = (collected(*arguments).stdout.split("\n\n")[0] for arguments in ((), ("-m", "gpu")))
    assert everything == marked != ""
    said = subprocess.run([sys.executable, "-m", "lab.gpus"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "make venv EXTRA=gpu" in said.stderr
