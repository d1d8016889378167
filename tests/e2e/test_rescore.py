"""`dynalign verify --rescore` on a real run of the test-bed's model: the recorded judge gives the recorded scores again."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from dynalign_contract.config import StageConfig
from dynalign_contract.layout import part_name, stage_folder
from dynalign_contract.records import JUDGEMENT, JudgementRow, read_rows, write_rows
from dynalign_contract.stages import Stage
from lab.local_runs import COMMAND, LocalRun
from support.finished_runs import seal
from support.shared_runs import SHORT, finished_run

pytestmark = pytest.mark.slow

FOLDER = stage_folder(Stage.JUDGE, 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return finished_run(tmp_path_factory, SHORT).run


def verify(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "verify", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def stopped(run: LocalRun, tmp_path: Path) -> Path:
    """A copy of the run as it was when its answers were judged, before anything was made from the judgements."""
    folder = Path(shutil.copytree(run.workdir, tmp_path / "run"))
    stored = json.loads((folder / "run.json").read_text())
    (iteration,) = stored["status"]["iterations"]
    iteration["stages"] = [stage for stage in iteration["stages"] if stage["stage"] in ("prompts", "generate", "judge")]
    for name in ("policy", "evaluation"):
        iteration.pop(name, None)
    for name in ("export", "best"):
        stored["status"].pop(name, None)
    (folder / "run.json").write_text(json.dumps(stored))
    return folder


def doctor(folder: Path, **changes: Any) -> str:
    """Change a judgement so that every digest is right again; returns the sentence's beginning that names it."""
    part = folder / FOLDER / part_name(0)
    rows = read_rows(part, JUDGEMENT)
    rows[1] = cast("JudgementRow", {**rows[1], **changes})
    write_rows(part, rows, JUDGEMENT)
    configs = [StageConfig.model_validate_json(p.read_text()) for p in folder.glob(".jobs/*judge*/stage.json")]
    artifact = seal(folder, FOLDER, configs[0])
    stored = json.loads((folder / "run.json").read_text())
    (judged,) = (stage for stage in stored["status"]["iterations"][0]["stages"] if stage["stage"] == "judge")
    judged["artifact"]["digest"] = artifact.digest
    (folder / "run.json").write_text(json.dumps(stored))
    return f"iteration 0, prompt {rows[1]['prompt_id']}, candidate {rows[1]['candidate']}: "


def test_the_judge_gives_the_recorded_scores_again(run: LocalRun) -> None:
    said = verify(run.workdir, "--rescore", "5", "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert found["problems"] == []
    assert found["rescore"]["rescored"] == 5
    assert found["rescore"]["largest"] < 0.01
    assert (found["rescore"]["differences"], found["rescore"]["refused"]) == ([], [])


def test_a_doctored_reward_is_found_although_every_digest_is_right(stopped: Path) -> None:
    named = doctor(stopped, reward=0.99, raw_reward=0.99)
    assert verify(stopped).returncode == 0
    said = verify(stopped, "--rescore", "16")
    assert said.returncode == 11, said.stderr
    problem, count = said.stderr.splitlines()
    assert problem.startswith(f"{named}raw_reward is recorded as 0.99 and base gives ")
    assert "reward is recorded as 0.99" in problem
    assert count.endswith(": 1 problem.")
    assert "16 candidates scored again by the recorded judge; the largest difference is " in said.stdout


def test_what_cannot_be_scored_again_is_said(stopped: Path) -> None:
    shutil.rmtree(stopped / "model")
    said = verify(stopped, "--rescore", "1")
    assert said.returncode == 11
    assert "model: its manifest is missing." in said.stderr
    assert "scored again" not in said.stdout


def test_an_archive_holds_no_answers(run: LocalRun, tmp_path: Path) -> None:
    archive = tmp_path / "run.tar"
    exported = [*COMMAND, "export-run", str(run.workdir), "-o", str(archive)]
    subprocess.run(exported, capture_output=True, check=True)
    said = verify(archive, "--rescore", "1")
    assert said.returncode == 10
    assert "--rescore needs the run's folder" in said.stderr
