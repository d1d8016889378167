"""What fetch says to do about a checkpoint whose tensors have other names: the command that it prints, executed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from support.preflight_runs import a_preflight, fetch, refusal
from zoo.decisions import decide
from zoo.families import Family, Passes
from zoo.table import REFUSED

WITH_TEXT_MODEL: Final = (
    "Gemma 3, with images",
    "Llama 4, as published",
    "Qwen3.5, as published",
    "Mistral Small 3.1 and 3.2",
    "Nemotron-H",
)
"""Refused families of which fetch says how to get a model that passes."""

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "family", [family for family in REFUSED if family.name in WITH_TEXT_MODEL], ids=lambda f: f.name
)
def test_the_command_that_fetch_prints_writes_a_model_that_passes(family: Family, tmp_path: Path) -> None:
    model = family.write(tmp_path / "source")
    said = refusal(fetch(model, a_preflight(), tmp_path / "root"), tmp_path / "root")
    (command,) = re.findall(r"`python (-m dynalign_trainer[^`]*)`", said)
    arguments = shlex.split(command)
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, timeout=600)
    found = decide(tmp_path / arguments[-1])
    assert isinstance(found, Passes), found


def test_a_model_that_cannot_be_written_is_refused_by_the_command_too(tmp_path: Path) -> None:
    (family,) = (family for family in REFUSED if family.name == "Qwen2.5-VL")
    model = family.write(tmp_path / "source")
    assert "text_model" not in refusal(fetch(model, a_preflight(), tmp_path / "root"), tmp_path / "root")
    command = [sys.executable, "-m", "dynalign_trainer.preflight.text_model", str(model), "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, (tmp_path / "out").exists()) == (11, False)
    assert "no causal language model of the model_type qwen2_5_vl_text" in done.stderr
