"""`dynalign validate`: the verdict for people and for programs, with the estimate of `dynalign estimate`."""

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from dynalign_operator.cli.main import app
from dynalign_operator.cli.verdict import Verdict

ROOT = Path(__file__).parents[3]
EXAMPLE = str(ROOT / "examples" / "qwen3-8b.yaml")
BAD = str(ROOT / "tests" / "data" / "bad_runs" / "budget-of-nothing.yaml")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "80"})


def a_file(folder: Path, **spec: Any) -> str:
    file = folder / "run.yaml"
    run = {"apiVersion": "dynalign.io/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": "x"}, "spec": spec}
    file.write_text(yaml.safe_dump(run))
    return str(file)


def test_the_summary_of_the_estimate_follows_the_verdict() -> None:
    said = invoke("validate", "--estimate", EXAMPLE)
    headline = " ".join(invoke("estimate", EXAMPLE).stdout.partition("\n\n")[0].split())
    assert said.exit_code == 0, said.output
    assert f"  estimate: {headline}" in said.stdout.splitlines()
    assert "estimate" not in invoke("validate", EXAMPLE).stdout


def test_what_does_not_fit_is_said_and_the_file_is_valid_all_the_same() -> None:
    said = invoke("validate", "--estimate", EXAMPLE, "--set", "spec.training.method=Full")
    assert said.exit_code == 0, said.output
    assert "does not fit: " in said.stderr
    assert "spec.storage.size" in said.stderr


def test_a_program_gets_a_verdict_for_each_file() -> None:
    said = invoke("validate", "--estimate", "-o", "json", EXAMPLE, BAD)
    assert said.exit_code == 10
    good, bad = map(Verdict.model_validate, json.loads(said.stdout))
    assert (good.valid, bad.valid) == (True, False)
    assert good.estimate is not None
    assert json.loads(good.estimate.to_json()) == json.loads(invoke("estimate", EXAMPLE, "-o", "json").stdout)
    assert f"{BAD}:{bad.problems[0].line}: {bad.problems[0].text}" in invoke("validate", BAD).stderr.splitlines()
    assert bad.estimate is None
    assert said.stderr == ""
    without = json.loads(invoke("validate", "-o", "json", EXAMPLE).stdout)
    assert "estimate" not in without[0]


def test_a_model_of_unknown_size_is_valid_and_noted(tmp_path: Path) -> None:
    file = a_file(tmp_path, model={"uri": "hf://some/model"})
    said = invoke("validate", "--estimate", file)
    assert said.exit_code == 0
    assert "--model-config" in said.stderr


def test_a_budget_that_can_never_be_reached_is_noted(tmp_path: Path) -> None:
    none = {"resources": {"limits": {"nvidia.com/gpu": "0"}}}
    spec: dict[str, Any] = {"model": {"uri": "hf://some/model"}, "policy": {"budget": {"gpuHours": 5}}}
    assert "no stage uses a GPU" not in invoke("validate", a_file(tmp_path, **spec)).stderr
    spec["stages"] = dict.fromkeys(("prompts", "generate", "judge", "train", "evaluate"), none)
    assert "no stage uses a GPU" in invoke("validate", a_file(tmp_path, **spec)).stderr
