"""Runs that other versions stored are read: estimates of version 0.1.0, and without fields that are unknown here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dynalign_contract.estimate import Estimate
from dynalign_operator.api.status import AlignmentRunStatus, IterationStatus
from dynalign_operator.api.stored import read_stored_status
from dynalign_operator.cli.main import app
from support.builders import a_run

RATE = Estimate(value=0.625, low=0.5, high=0.75)


def stored(**numbers: Any) -> dict[str, Any]:
    return {"winRate": 0.625, "iterations": [{"index": 0, "reward": 0.5, **numbers}]}


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ({"winRate": 0.625, "winRateLow": 0.5, "winRateHigh": 0.75}, RATE),
        ({"winRate": 0.625}, Estimate(value=0.625)),
        ({"winRate": {"value": 0.625, "low": 0.5, "high": 0.75}}, RATE),
        ({}, None),
    ],
    ids=["flat", "pruned by an API server", "as it is now", "absent"],
)
def test_a_win_rate_is_read(numbers: dict[str, Any], found: Estimate | None) -> None:
    status = read_stored_status(stored(**numbers))
    assert status.win_rate == Estimate(value=0.625)
    assert status.iterations[0].win_rate == found
    assert AlignmentRunStatus.model_validate_json(status.to_json()) == status


def test_a_capability_is_read_with_the_interval_of_its_change() -> None:
    (iteration,) = read_stored_status(
        stored(capability=0.5, capabilityDelta=-0.1, capabilityDeltaLow=-0.2, capabilityDeltaHigh=0.0)
    ).iterations
    assert iteration.capability == Estimate(value=0.5)
    assert iteration.capability_delta == Estimate(value=-0.1, low=-0.2, high=0.0)


def test_a_finished_run_of_the_version_before_is_shown(tmp_path: Path) -> None:
    run = a_run().with_iterations(1).build().model_dump(mode="json", by_alias=True, exclude_none=True)
    numbers = {"winRate": 0.625, "winRateLow": 0.5, "winRateHigh": 0.75}
    status = {"phase": "Succeeded", "winRate": 0.625, "iterations": [{"index": 0, "reward": 0.5, **numbers}]}
    (tmp_path / "run.json").write_text(json.dumps({**run, "status": status}))
    shown = CliRunner().invoke(app, ["status", "--wide", str(tmp_path)])
    assert shown.exit_code == 0, shown.stderr
    assert "r: Succeeded" in shown.stdout
    assert "0.62 (0.50-0.75)" in shown.stdout


def test_a_specification_with_fields_of_another_version_is_shown_without_them(tmp_path: Path) -> None:
    run = a_run().with_iterations(1).build().model_dump(mode="json", by_alias=True, exclude_none=True)
    run["spec"]["judging"]["secondOpinions"] = 8  # as 0.1.0 stored it
    run["spec"]["judging"]["canaries"]["colour"] = "yellow"
    run["spec"]["stages"] = {"train": {"tolerations": [{"key": "gpu", "hue": 1}], "nodeSelector": {"hue": "kept"}}}
    run["status"]["mood"] = "good"
    (tmp_path / "run.json").write_text(json.dumps(run))
    shown = CliRunner().invoke(app, ["status", str(tmp_path), "-o", "json"])
    assert shown.exit_code == 0, shown.stderr
    stages = json.loads(shown.stdout)["spec"]["stages"]
    assert (stages["train"]["tolerations"][0]["key"], stages["train"]["nodeSelector"]) == ("gpu", {"hue": "kept"})
    assert not {"secondOpinions", "colour", "mood"} & set(re.findall(r'"(\w+)":', shown.stdout))


def test_a_value_of_another_version_is_refused_with_its_field(tmp_path: Path) -> None:
    run = a_run().build().model_dump(mode="json", by_alias=True, exclude_none=True)
    run["spec"]["judging"]["judge"] = "Committee"
    (tmp_path / "run.json").write_text(json.dumps(run))
    shown = CliRunner().invoke(app, ["status", "--wide", str(tmp_path)])
    assert shown.exit_code != 0
    assert "spec.judging.judge: Input should be 'Live', 'Base' or 'Lagged'" in " ".join(shown.stderr.split())


def test_what_is_no_number_is_refused() -> None:
    for wrong in ("0.5", [0.5], {"low": 0.5}):
        with pytest.raises(ValueError, match="winRate"):
            IterationStatus.model_validate({"index": 0, "winRate": wrong})


def test_half_a_character_in_a_stored_status_does_not_stop_the_next_write() -> None:
    status = read_stored_status({"progress": "a\ud800b", "fetch": {"stage": "fetch", "job": "\ud800"}})
    assert AlignmentRunStatus.model_validate_json(status.to_json()) == status
