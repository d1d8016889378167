"""`dynalign prompts`: samples, drops and the yield of every agent, for people and for programs."""

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner, Result

from dynalign_contract.layout import DRAFTS_FILE, PROMPTS_FILE, YIELD_FILE, stage_folder
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.prompt_yield import AgentYield, PromptYield, PromptYields
from dynalign_contract.records import DRAFT, PROMPT, DraftRow, PromptRow, write_rows
from dynalign_contract.stages import Stage
from dynalign_operator.cli.main import app
from dynalign_operator.cli.prompt_tables import pick_samples
from support.builders import a_run

YIELDS = PromptYields(
    sets=(
        PromptYield(
            purpose="train",
            wanted=3,
            found=3,
            agents=(
                AgentYield(
                    agent="author",
                    model="endpoint:big",
                    given=9,
                    kept=8,
                    dropped={"unfinished": 1},
                    requests=10,
                    tokens=1234,
                ),
                AgentYield(agent="curator", given=8, kept=5, dropped={"duplicate": 1, "near-duplicate": 2}),
                AgentYield(agent="critic", model="base", given=5, kept=5, requests=10, tokens=999),
            ),
        ),
    )
)


def prompt(number: int, text: str, **fields: Any) -> PromptRow:
    row: Any = {
        "prompt_id": f"000-{number:05d}",
        "messages": [{"role": "user", "content": text}],
        "source": "agents",
        "facets": {"domain": "health", "persona": "a nurse"},
        "critic_score": 6.25,
        "agents": {"author": "endpoint:big", "critic": "base"},
        "draft_id": f"train-0-{number:05d}",
        "draft": "",
        "draft_score": math.nan,
        **fields,
    }
    return cast("PromptRow", row)


def draft(number: int, text: str, outcome: str) -> DraftRow:
    return {
        "draft_id": f"train-0-{number:05d}",
        "facets": {"domain": "health"},
        "text": text,
        "score": math.nan,
        "revised": "",
        "revised_score": math.nan,
        "agent": "curator",
        "outcome": outcome,
        "prompt_id": "",
    }


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(a_run().build().to_json())
    folder = tmp_path / stage_folder(Stage.PROMPTS, 0)
    folder.mkdir(parents=True)
    rows = [
        prompt(0, "How can I rest [more]?"),
        prompt(1, "Is it right to lie?", draft="Lie or not?", draft_score=4.5),
        prompt(2, "Hello", source="supplied", facets={}, agents={}, critic_score=math.nan),
    ]
    drafts = [
        draft(3, "How can I rest more now?", "near-duplicate"),
        draft(4, "How can I rest", "near-duplicate"),
        draft(5, "", "unfinished"),
    ]
    write_rows(folder / PROMPTS_FILE, rows, PROMPT)
    write_rows(folder / DRAFTS_FILE, drafts, DRAFT)
    (folder / YIELD_FILE).write_text(YIELDS.to_json())
    files = tuple(describe_file(folder, name, 0) for name in (PROMPTS_FILE, DRAFTS_FILE, YIELD_FILE))
    write_manifest(
        folder,
        Manifest(stage=Stage.PROMPTS, iteration=0, config_digest="sha256:" + "0" * 64, files=files, seconds=1.0),
    )
    return tmp_path


def prompts(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, ["prompts", *map(str, arguments)])


def test_people_see_samples_drops_and_yield(workdir: Path) -> None:
    shown = prompts(workdir)
    assert shown.exit_code == 0, shown.stderr
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    assert lines[0] == "iteration 0: 3 prompts"
    assert "000-00000  score 6.25" in lines
    assert "How can I rest [more]?" in lines
    assert "was (score 4.50): Lie or not?" in lines
    assert "000-00002  no score" in lines
    assert "domain: health, persona: a nurse" in lines
    assert [line for line in lines if line.startswith("near-duplicate")] == [
        "near-duplicate (no score): How can I rest more now?"
    ]
    assert "training prompts: 3 of 3 wanted" in lines
    (author,) = [line.split() for line in lines if line.startswith("author")]
    assert author == ["author", "endpoint:big", "9", "8", "10", "1,234", "1", "unfinished"]
    (curator,) = [line for line in lines if line.startswith("curator")]
    assert curator.split() == ["curator", "-", "8", "5", "-", "-", "2", "near-duplicate,", "1", "duplicate"]
    assert max(map(len, lines)) <= 100


def test_programs_get_everything_and_no_nan(workdir: Path) -> None:
    found = json.loads(prompts(workdir, "--json").stdout, parse_constant=pytest.fail)
    assert found["iteration"] == 0
    assert [row["prompt_id"] for row in found["prompts"]] == ["000-00000", "000-00001", "000-00002"]
    assert found["prompts"][2]["critic_score"] is None
    assert found["prompts"][1]["draft"] == "Lie or not?"
    assert [row["outcome"] for row in found["drafts"]] == ["near-duplicate", "near-duplicate", "unfinished"]
    assert found["yields"][0]["agents"][0]["dropped"] == {"unfinished": 1}


def test_no_samples_leave_the_table(workdir: Path) -> None:
    shown = prompts(workdir, "--samples", "0").stdout
    assert "000-00000" not in shown
    assert "training prompts: 3 of 3 wanted" in shown


@pytest.mark.parametrize(
    ("count", "picked"), [(0, []), (1, [0]), (2, [0, 5]), (5, [0, 2, 4, 6, 8]), (99, list(range(10)))]
)
def test_samples_are_spread_over_the_set(count: int, picked: list[int]) -> None:
    rows = [{"prompt_id": number} for number in range(10)]
    assert [row["prompt_id"] for row in pick_samples(rows, count)] == picked


def test_what_is_not_there_is_said(workdir: Path, tmp_path: Path) -> None:
    later = prompts(workdir, "--iteration", "3")
    assert later.exit_code == 11
    assert later.stderr == f"{workdir} has no finished prompts of iteration 3; it has those of the iterations: 0.\n"
    (workdir / stage_folder(Stage.PROMPTS, 0) / "manifest.json").unlink()
    assert prompts(workdir).stderr == f"{workdir} has no finished prompts; it has those of the iterations: none.\n"
    (tmp_path / "empty").mkdir()
    assert "holds no run (no run.json)" in prompts(tmp_path / "empty").stderr


@pytest.mark.parametrize(
    ("name", "words"), [(PROMPTS_FILE, "cannot be read as Parquet"), (YIELD_FILE, "yield.json cannot be read")]
)
def test_damage_is_named(workdir: Path, name: str, words: str) -> None:
    (workdir / stage_folder(Stage.PROMPTS, 0) / name).write_bytes(b"{")
    shown = prompts(workdir)
    assert shown.exit_code == 11
    assert words in shown.stderr
