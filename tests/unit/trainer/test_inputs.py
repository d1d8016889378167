"""What a stage does before its own work: digests of its inputs beside the imports of its engine."""

import threading
from pathlib import Path

import pytest

from dynalign_contract import manifest
from dynalign_contract.config import GenerateParams, JudgeParams, Params, PromptsParams, StageConfig, TrainParams
from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import sha256_of
from dynalign_contract.objective import builtin_objective
from dynalign_contract.settings import GenerationSettings, JudgingSettings, PromptSettings, TrainingSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.models import opening
from dynalign_trainer.runtime.context import Gang
from dynalign_trainer.runtime.inputs import take_inputs
from dynalign_trainer.runtime.telemetry import Telemetry

GENERATE = GenerateParams(generation=GenerationSettings())
OBJECTIVE = builtin_objective("collective-agency")
FAR = {"model": "Endpoint", "endpoint": {"url": "http://far/v1", "model": "big"}}


def with_model(root: Path, params: Params = GENERATE) -> StageConfig:
    """A stage whose only input is a model of one file."""
    (root / "model").mkdir()
    (root / "model/weights").write_text("w" * 1000)
    files = (manifest.describe_file(root / "model", "weights"),)
    found = manifest.Manifest(stage=Stage.FETCH, config_digest="x", files=files)
    manifest.write_manifest(root / "model", found)
    return StageConfig(run="r", iteration=0, params=params, inputs={"model": manifest.reference_to("model", found)})


def take(config: StageConfig, root: Path, *, asks_models: bool = True) -> dict[str, tuple[Path, ...]]:
    found = take_inputs(config, root, Gang(), None, Telemetry(), asks_models=asks_models)
    assert found.weights is None
    return dict(found.folders)


def test_digests_are_checked_while_the_engine_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two waits for the other one to have begun, and libraries may set signal handlers."""
    config, check = with_model(tmp_path), sha256_of
    importing, checking = threading.Event(), threading.Event()
    threads = []

    def imports() -> None:
        threads.append(threading.current_thread())
        importing.set()
        assert checking.wait(60)

    def checks(path: Path) -> str:
        checking.set()
        assert importing.wait(60)
        return check(path)

    monkeypatch.setattr(opening, "import_libraries", imports)
    monkeypatch.setattr(manifest, "sha256_of", checks)
    assert take(config, tmp_path) == {"model": (tmp_path / "model",)}
    assert threads == [threading.main_thread()]


def test_a_damaged_input_ends_the_stage_though_the_imports_went_well(tmp_path: Path) -> None:
    config = with_model(tmp_path)
    (tmp_path / "model/weights").write_text("v" * 1000)
    with pytest.raises(CorruptArtifactError, match="weights"):
        take(config, tmp_path)


@pytest.mark.parametrize(
    ("params", "needed"),
    [
        (GENERATE, True),
        (PromptsParams(objective=OBJECTIVE, prompts=PromptSettings(), reserve_tokens=8), True),
        (
            PromptsParams(
                objective=OBJECTIVE,
                prompts=PromptSettings.model_validate({"agents": {"author": FAR, "critic": FAR}}),
                reserve_tokens=8,
            ),
            False,
        ),
        (JudgeParams(objective=OBJECTIVE, judging=JudgingSettings(), max_tokens=8, prompts_per_part=1), True),
        (
            JudgeParams(
                objective=OBJECTIVE,
                judging=JudgingSettings.model_validate(
                    {"judges": [{"name": "far", "judge": "Endpoint", "endpoint": FAR["endpoint"]}]}
                ),
                max_tokens=8,
                prompts_per_part=1,
            ),
            False,
        ),
    ],
)
def test_only_a_stage_that_asks_the_runs_own_model_imports_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, *, needed: bool
) -> None:
    imported: list[bool] = []
    monkeypatch.setattr(opening, "import_libraries", lambda: imported.append(True))
    config = with_model(tmp_path, params)
    take(config, tmp_path)
    assert imported == [True] * needed
    assert take(config, tmp_path, asks_models=False) == {}, "weights are no input of a stage that joins shares"
    assert imported == [True] * needed


TRAIN = TrainParams(training=TrainingSettings().with_defaults(), temperature=1.0, max_tokens=16)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_train_gets_its_model_at_once_and_waits_for_the_check_when_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_damaged: bool
) -> None:
    config, check, goes_on = with_model(tmp_path, TRAIN), sha256_of, threading.Event()

    def checks(path: Path) -> str:
        assert goes_on.wait(60)
        return check(path)

    monkeypatch.setattr(manifest, "sha256_of", checks)
    if is_damaged:
        (tmp_path / "model/weights").write_text("v" * 1000)
    found = take_inputs(config, tmp_path, Gang(), None, Telemetry(), asks_models=True)
    assert found.folders == {"model": (tmp_path / "model",)}
    assert found.weights is not None
    assert not found.weights.has_ended(0.01)
    goes_on.set()
    if is_damaged:
        with pytest.raises(CorruptArtifactError, match="weights"):
            found.weights.has_ended(60)
    else:
        assert found.weights.has_ended(60)


def test_only_rank_0_checks_the_model_of_a_gang(tmp_path: Path) -> None:
    config = with_model(tmp_path, TRAIN)
    (tmp_path / "model/weights").write_text("v" * 1000)
    found = take_inputs(config, tmp_path, Gang(rank=1, nodes=2), None, Telemetry(), asks_models=True)
    assert (found.folders, found.weights) == ({"model": (tmp_path / "model",)}, None)
