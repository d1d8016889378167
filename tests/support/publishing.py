"""The export stage with places to publish to, and the fetch stage that reads from there, in this process."""

from pathlib import Path

import pytest

from dynalign_contract.config import ExportParams, FetchParams, Policy, StageConfig
from dynalign_contract.objective import builtin_objective
from dynalign_contract.result import StageResult
from dynalign_contract.settings import PublishTarget, publish_credentials
from dynalign_contract.stores import MODEL_CREDENTIALS
from dynalign_trainer.runtime.lifecycle import Place, run_stage
from support.artifacts import as_artifact


def run(root: Path, params: ExportParams | FetchParams) -> StageResult:
    inputs = {"model": as_artifact(root, "model")} if isinstance(params, ExportParams) else {}
    (root / "stage.json").write_text(StageConfig(run="tiny", inputs=inputs, params=params).to_json())
    run_stage(root / "stage.json", root, root / "result", Place())
    return StageResult.decode((root / "result").read_bytes())


def export(root: Path, *targets: PublishTarget) -> StageResult:
    objective = builtin_objective("collective-agency")
    return run(root, ExportParams(policy=Policy(), model_uri="/m", objective=objective, publish=targets))


def give_keys(monkeypatch: pytest.MonkeyPatch, username: str, password: str) -> None:
    """Put the keys of the first place to publish to, and of the model's store, into the environment."""
    for variables in (publish_credentials(0), MODEL_CREDENTIALS):
        monkeypatch.setenv(variables.username, username)
        monkeypatch.setenv(variables.password, password)
