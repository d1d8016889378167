"""`dynalign validate` looks at what a run file names on this machine: prompts line by line, a model as fetch would."""

import json
import shutil
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dynalign_operator.cli import check_files
from dynalign_operator.cli.main import app
from support.odd_models import NO_SYSTEM, set_json, set_template
from support.quantised_models import CHECKPOINTS

QUESTIONS = [f"Question number {i}: is it long enough for this?" for i in range(12)]


def a_run_file(
    folder: Path,
    rows: Sequence[Any],
    *,
    model: str = "bundled://smollm2-135m-instruct",
    compares: bool = False,
    **more: object,
) -> Path:
    """`more` are further fields of `spec.model`."""
    (folder / "mine.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    spec = {
        "model": {"uri": model, **more},
        "prompts": {"perIteration": 4, "heldOut": 1, "supplied": {"uri": "./mine.jsonl"}},
        "generation": {"maxTokens": 24},
        # the tiny model's tokenizer writes a space and a letter as two tokens
        "evaluation": {"winRate": {"method": "Pairwise" if compares else "Pointwise"}},
    }
    run = {"apiVersion": "dynalign.io/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": "r"}, "spec": spec}
    (folder / "run.yaml").write_text(json.dumps(run, indent=1))
    return folder / "run.yaml"


def validate(file: Path) -> Result:
    return CliRunner().invoke(app, ["validate", str(file)])


def line_of(file: Path, key: str) -> int:
    return next(n for n, line in enumerate(file.read_text().splitlines(), start=1) if f'"{key}"' in line)


def test_prompts_that_can_be_used_pass(tmp_path: Path) -> None:
    file = a_run_file(
        tmp_path,
        [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "x"}]} for q in QUESTIONS],
    )
    result = validate(file)
    assert result.exit_code == 0, result.stderr
    assert "in 12 of 12 rows the last answer was left off" in result.stderr


@pytest.mark.parametrize(
    ("rows", "key", "words"),
    [
        ([{"prompt": QUESTIONS[0]}, {"prompt": 7}], "uri", "mine.jsonl, line 2: prompt is a number"),
        ([{"question": "a"}], "uri", "rename question to prompt"),
        ([{"prompt": QUESTIONS[0]}], "perIteration", "spec.prompts.perIteration is 4 and needs 4 rows of your own"),
    ],
)
def test_prompts_that_cannot_be_used_are_told_with_both_places(
    tmp_path: Path, rows: Sequence[Any], key: str, words: str
) -> None:
    file = a_run_file(tmp_path, rows)
    result = validate(file)
    assert result.exit_code == 10
    assert words in result.stderr
    found = result.stderr.splitlines()[-1]
    lines = (
        {line_of(file, key)}
        if key != "uri"
        else {n for n, line in enumerate(file.read_text().splitlines(), 1) if "mine.jsonl" in line}
    )
    assert any(found.startswith(f"{file}:{line}: ") for line in lines), found


def test_where_the_stages_are_not_installed_the_rows_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == "torch" else ModuleSpec(name, None)

    monkeypatch.setattr(check_files, "find_spec", find)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    result = validate(a_run_file(tmp_path, [{"prompt": 7}], model="./model"))
    assert result.exit_code == 10
    assert "note: the model was not looked at" in result.stderr
    assert "line 1: prompt is a number" in result.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param([], [], id="fits"),
        pytest.param(
            [set_template(NO_SYSTEM), set_json("config.json", quantization_config={"quant_method": "fp8"})],
            ["the weights are quantised"],
            id="quantised",
        ),
        pytest.param(
            [set_template(NO_SYSTEM)], ["mine.jsonl, line 1, line 2", "System role not supported"], id="template"
        ),
    ],
)
@pytest.mark.slow
def test_a_model_on_this_machine_is_looked_at_as_fetch_would(
    changes: Sequence[Callable[[Path], None]], words: Sequence[str], tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    for change in changes:
        change(tmp_path / "model")
    turns = [{"role": "system", "content": "Be kind."}]
    rows = [{"messages": [*turns, {"role": "user", "content": q}]} for q in QUESTIONS]
    result = validate(a_run_file(tmp_path, rows, model="./model"))
    assert result.exit_code == (10 if words else 0), result.stderr
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert ("training: backend Packed (Auto: " in result.stdout) == (not words)


@pytest.mark.slow
def test_what_a_conversion_takes_is_told_beforehand(tmp_path: Path) -> None:
    CHECKPOINTS["fp8-blocks"].write(tmp_path / "model")
    rows = [{"prompt": question} for question in QUESTIONS]
    refused = validate(a_run_file(tmp_path, rows, model="./model"))
    assert refused.exit_code == 10
    assert "Write spec.model.quantized: Dequantize" in refused.stderr
    told = validate(a_run_file(tmp_path, rows, model="./model", quantized="Dequantize"))
    assert told.exit_code == 0, told.stderr
    assert "note: the weights are quantised (fp8): fetch converts" in told.stderr
    assert "fetch needs about 2.5 GiB of memory" in told.stderr


@pytest.mark.slow
def test_letters_that_the_tokenizer_writes_as_two_tokens_are_found(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    result = validate(a_run_file(tmp_path, [{"prompt": q} for q in QUESTIONS], model="./model", compares=True))
    assert result.exit_code == 10
    assert "cannot write ' A' as exactly one token after the prefill 'Better answer:'" in result.stderr
