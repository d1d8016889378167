"""The data of a task of the harness: brought by fetch, found by evaluate with the hub gone and no cache of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dynalign_contract.config import FetchParams, StageConfig
from dynalign_contract.result import StageResult
from lab.tiny_qwen3 import write_tiny_qwen3
from support.hub_server import Hub

pytestmark = pytest.mark.slow

TOKEN = "a-token"  # noqa: S105 - of a hub that lives for one test
FIND = """
import sys
from pathlib import Path
import datasets, huggingface_hub  # as in a stage forked off the preload server, which has them already
from dynalign_trainer.tasks.suites import load_suites
for suite in load_suites(sys.argv[2:], None, Path(sys.argv[1])):
    for task in suite.tasks.values():
        print(suite.name, suite.items, task.doc_to_text(task.eval_docs[0]))
"""
"""What evaluate does before it asks the model."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen3(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """gsm8k's data set and ifeval's as the hub has them, but short."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "gsm8k" / "main").mkdir(parents=True)
    (folder / "ifeval").mkdir()
    for split, count in (("train", 6), ("test", 3)):
        rows = [{"question": f"What is {i} + {i}?", "answer": f"#### {2 * i}"} for i in range(count)]
        (folder / "gsm8k" / "main" / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    files = "".join(f"  - split: {split}\n    path: main/{split}.jsonl\n" for split in ("train", "test"))
    (folder / "gsm8k" / "README.md").write_text(f"---\nconfigs:\n- config_name: main\n  data_files:\n{files}---\n")
    row = {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"n": 1}]}
    (folder / "ifeval" / "ifeval_input_data.jsonl").write_text(json.dumps(row))
    return {"openai/gsm8k": folder / "gsm8k", "google/IFEval": folder / "ifeval"}


@pytest.fixture(scope="module")
def brought(model: Path, repositories: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose fetch stage has had a hub, which is gone now."""
    root = tmp_path_factory.mktemp("brought")
    with Hub("org/tiny", model, datasets=repositories, token=TOKEN) as hub:
        result = fetch(hub, root, model, "gsm8k", HF_TOKEN=TOKEN)
    assert result.exit_code == 0, (result, (root / "log").read_text()[-5000:])
    return root


@pytest.fixture
def gone(model: Path) -> Hub:
    with Hub("org/tiny", model) as hub:
        return hub


def environment(root: Path, more: Mapping[str, str]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "NLTK_"))}
    return {**inherited, "HF_HOME": str(root / "home"), "HOME": str(root), **more}


def fetch(hub: Hub, root: Path, model: Path, *tasks: str, **more: str) -> StageResult:
    root.mkdir(exist_ok=True)
    config = StageConfig(run="r", params=FetchParams(uri=str(model), tasks=tasks))
    (root / "stage.json").write_text(config.to_json())
    command = [sys.executable, "-m", "dynalign_trainer.main"]
    files = ["--config", root / "stage.json", "--root", root, "--result", root / "result"]
    variables = environment(root, {"HF_ENDPOINT": hub.url, **more})
    with (root / "log").open("w") as log:
        subprocess.run([*command, *map(str, files)], env=variables, check=False, stdout=log, stderr=log)
    return StageResult.decode((root / "result").read_bytes())


def find(hub: Hub, root: Path, *tasks: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What another pod finds: same volume, a home of its own, no network."""
    variables = environment(root, {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1", **more})
    command = [sys.executable, "-c", FIND, str(root / "tasks"), *tasks]
    return subprocess.run(command, env=variables, check=False, capture_output=True, text=True)


def message(result: StageResult) -> str:
    assert result.error is not None, result
    return result.error.message


def test_what_fetch_has_brought_evaluate_finds(brought: Path, gone: Hub) -> None:
    assert [path.name for path in (brought / "tasks").iterdir()] == ["gsm8k"]
    assert (brought / "model" / "config.json").is_file()
    shutil.rmtree(brought / "home", ignore_errors=True)
    found = find(gone, brought, "gsm8k", "dynalign_choices")
    assert "gsm8k 3 Question: What is 0 + 0?" in found.stdout, found.stderr[-5000:]
    assert not (brought / "home").exists()


def test_a_task_that_was_named_later_is_missed_in_words(brought: Path, gone: Hub) -> None:
    later = find(gone, brought, "gsm8k", "arc_easy")
    assert "the fetch stage has brought none" in later.stderr
    assert "start a new run that names arc_easy" in later.stderr


def test_without_a_hub_a_run_goes_on_with_the_machines_own_cache(
    brought: Path, gone: Hub, model: Path, tmp_path: Path
) -> None:
    own = {"HF_HOME": str(brought / "tasks" / "gsm8k")}
    result = fetch(gone, tmp_path, model, "gsm8k", **own)
    assert result.exit_code == 0, (result, (tmp_path / "log").read_text()[-5000:])
    assert list((tmp_path / "tasks").iterdir()) == []
    found = find(gone, tmp_path, "gsm8k", **own)
    assert "gsm8k 3 Question: What is 0 + 0?" in found.stdout, found.stderr[-5000:]


def test_a_hub_that_keeps_the_data_closed_is_asked_no_more(
    model: Path, repositories: dict[str, Path], tmp_path: Path
) -> None:
    with Hub("org/tiny", model, datasets=repositories, token=TOKEN) as hub:
        result = fetch(hub, tmp_path, model, "gsm8k")
    assert result.exit_code == 11, (result, (tmp_path / "log").read_text()[-5000:])
    assert "spec.model.tokenSecretRef" in message(result)
    assert not (tmp_path / "model" / "config.json").exists()


def test_ifeval_needs_what_nltk_splits_sentences_by(model: Path, repositories: dict[str, Path], tmp_path: Path) -> None:
    """Nobody answers at the proxy, which only nltk's download is sent to: the hub here is plain http."""
    closed = {"https_proxy": "http://127.0.0.1:9"}
    with Hub("org/tiny", model, datasets=repositories) as hub:
        result = fetch(hub, tmp_path, model, "ifeval", **closed)
        assert (result.exit_code, result.error and result.error.reason) == (1, "HubUnreachable")
        assert "ifeval needs nltk's punkt_tab" in message(result)
        (tmp_path / "words" / "tokenizers" / "punkt_tab" / "english").mkdir(parents=True)
        result = fetch(hub, tmp_path, model, "ifeval", NLTK_DATA=str(tmp_path / "words"), **closed)
    assert result.exit_code == 0, (result, (tmp_path / "log").read_text()[-5000:])
    found = find(hub, tmp_path, "ifeval", NLTK_DATA=str(tmp_path / "words"), **closed)
    assert "ifeval 1 No commas." in found.stdout, found.stderr[-5000:]


def test_nltk_downloads_into_the_folder_of_the_task(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from dynalign_trainer.tasks.data import data_in, nltk_folder
folder = Path({str(tmp_path)!r})
nltk_folder(folder).mkdir()
with data_in(folder):
    import nltk.downloader
print(nltk.downloader.Downloader().default_download_dir(), nltk.data.path[0])
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.split() == [str(tmp_path / "nltk")] * 2
