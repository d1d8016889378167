"""Tasks whose metrics are scripts of the hub: refused, never fetched and run."""

import os
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.errors import BadInputError
from dynalign_trainer.tasks import suites

HUMANEVAL = """
task: hub_metric
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"]}
METRICS
"""
IMPORTED = "process_results: !function scoring.score\nmetric_list: [{metric: mine}]"
NAMED = "metric_list: [{metric: rouge, aggregation: mean, higher_is_better: true}]"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose caches hold no metric; the setting under test is not set by the machine."""
    for name in ("HF_HOME", "HF_MODULES_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "0")


@pytest.mark.parametrize("metrics", [IMPORTED, NAMED], ids=["imported", "named"])
def test_a_task_whose_metric_is_a_script_of_the_hub_is_refused(
    metrics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (tmp_path / "scoring.py").write_text("import evaluate\nscore = evaluate.load('rouge')\n")
    text = HUMANEVAL.replace("FOLDER", str(tmp_path)).replace("METRICS", metrics)
    (tmp_path / "hub_metric.yaml").write_text(text)
    monkeypatch.setattr(suites, "_OWN", tmp_path)
    monkeypatch.setattr(suites, "OWN_TASK_PREFIX", "hub_")
    with pytest.raises(BadInputError, match=r"hub_metric scores with a metric .* which dynalign never runs"):
        suites.load_task_data("hub_metric", tmp_path / "data")
    assert os.environ["HF_EVALUATE_OFFLINE"] == "1"


def test_a_task_that_scores_by_itself_needs_no_metric_of_the_harness() -> None:
    class Config:
        process_results = len

    class Task:
        config: Any = Config

        def __init__(self) -> None:
            self._metric_fn_list = {"mine": None}

    suites.check_metrics("own", Task())
