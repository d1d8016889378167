"""What `dynalign export-data` writes is loaded by the library `datasets`, as the card says."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dynalign_operator.cli.main import app
from dynalign_report.data_set import answer_rows, preference_rows
from support.report_runs import WorkFolder

pytestmark = pytest.mark.slow

RUN = WorkFolder(name="mine").of_size(2, 3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = RUN.write(tmp_path_factory.mktemp("runs"))
    output = workdir.parent / "data"
    result = CliRunner().invoke(app, ["export-data", str(workdir), "-o", str(output)])
    assert (result.exit_code, result.output) == (0, f"{output} holds 24 answers and 6 preference pairs.\n")
    return output


def load(folder: Path, configuration: str, cache: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(str(folder), configuration, split="train", cache_dir=str(cache))


def test_every_answer_is_there_with_its_scores_and_reward(folder: Path, tmp_path: Path) -> None:
    rows = load(folder, "answers", tmp_path)
    assert len(rows) == 24
    for row in rows:
        number = int(next(i for i in range(3) if RUN.prompt_id(row["iteration"], i) == row["prompt_id"]))
        assert math.isclose(row["reward"], RUN.reward(row["iteration"], number, row["candidate"]), rel_tol=1e-6)
        assert row["prompt"][-1]["role"] == "user"
        assert row["scores"]


def test_a_pair_is_the_best_and_the_worst_answer_to_a_prompt(folder: Path, tmp_path: Path) -> None:
    answers = list(load(folder, "answers", tmp_path))
    pairs = list(load(folder, "preferences", tmp_path))
    assert len(pairs) == 6
    for pair in pairs:
        rewards = {row["answer"]: row["reward"] for row in answers if row["prompt_id"] == pair["prompt_id"]}
        (chosen,), (rejected,) = pair["chosen"], pair["rejected"]
        assert chosen["role"] == rejected["role"] == "assistant"
        assert rewards[chosen["content"]] == max(rewards.values()) == pair["score_chosen"]
        assert rewards[rejected["content"]] == min(rewards.values()) == pair["score_rejected"]


def test_the_card_names_model_and_numbers(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    run = json.loads((folder.parent / "mine" / "run.json").read_text()) if (folder.parent / "mine").is_dir() else None
    assert "24 answers" in card
    assert "6 pairs" in " ".join(card.split())
    assert run is None or run["spec"]["model"]["uri"] in card


def rollout(candidate: int) -> Any:
    return {
        "prompt_id": "p",
        "candidate": candidate,
        "messages": [{"role": "user", "content": "Why?"}],
        "text": f"answer {candidate}",
        "finish_reason": "stop",
        "policy": "base",
    }


def judgement(candidate: int, reward: float) -> Any:
    return {
        "prompt_id": "p",
        "candidate": candidate,
        "judge": "base",
        "scores": [{"aspect": "k", "score": reward * 9, "mass": 1.0}],
        "reward": reward,
        "reward_error": math.nan,
    }


@pytest.mark.parametrize(
    ("rewards", "margin", "pair"),
    [
        ({0: 0.2, 1: 0.9, 2: 0.5}, 0.0, (1, 0)),
        ({0: 0.5, 1: 0.5}, 0.0, None),
        ({0: 0.5, 1: 0.6}, 0.2, None),
        ({0: math.nan, 1: 0.6, 2: 0.4}, 0.0, (1, 2)),
        ({0: 0.6}, 0.0, None),
        ({}, 0.0, None),
    ],
    ids=["best and worst", "equal", "within the margin", "undecided", "one answer", "not judged"],
)
def test_which_pairs_there_are(rewards: dict[int, float], margin: float, pair: tuple[int, int] | None) -> None:
    rows = list(answer_rows(0, [rollout(i) for i in range(3)], [judgement(i, reward) for i, reward in rewards.items()]))
    found = list(preference_rows(rows, margin))
    contents = [(one["chosen"][0]["content"], one["rejected"][0]["content"]) for one in found]
    assert contents == ([] if pair is None else [(f"answer {pair[0]}", f"answer {pair[1]}")])


def test_a_run_without_judged_answers_says_so(tmp_path: Path) -> None:
    workdir = WorkFolder().of_size(1, 1, 1).write(tmp_path)
    for path in (workdir / "iterations").rglob("*"):
        if path.is_file():
            path.unlink()
    result = CliRunner().invoke(app, ["export-data", str(workdir), "-o", str(tmp_path / "data")])
    assert (result.exit_code, "has no judged answers" in result.output) == (11, True)
