"""How the policy is trained: defaults written out for stages, the choice in the status, and runs that were stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from dynalign_contract.config import ExportParams, FetchParams, StageConfig, TrainParams
from dynalign_contract.settings import TrainingBackend, TrainingMethod, TrainingSettings
from dynalign_contract.stages import Stage
from dynalign_contract.training_choice import TrainingChoice
from dynalign_operator.api.rules.checking import broken_rules
from dynalign_operator.api.rules.training import TRAINING_RULES
from dynalign_operator.cli.main import app
from dynalign_operator.planning.observed import JobObservation
from support.builders import a_run
from support.simulation import Simulation, succeed

USUAL: Final = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STORED: Final[dict[str, Any]] = {
    "backend": "Packed",
    "method": "LoRA",
    "microBatch": 4,
    "tokensPerMicroBatch": 4096,
    "learningRate": 1e-5,
    "lora": {"rank": 16, "alpha": 32, "dropout": 0.0, "targetModules": USUAL},
}
"""What API servers wrote into a run that said nothing of its training, before Auto was the default."""
CHOICE: Final = TrainingChoice(
    backend=TrainingBackend.TRL,
    backend_reason="Packed does not compute layers of type linear_attention of M",
    target_modules=("q_proj", "o_proj"),
    target_reason="M is a mixture of experts",
)


def until_training(**training: Any) -> Simulation:
    simulation = Simulation(a_run().with_spec(training=training).build()).until(Stage.TRAIN, 0)
    simulation.plan()
    return simulation


def broken(**training: Any) -> list[tuple[int | str, ...]]:
    """The settings of the training that break a rule."""
    run = a_run().with_spec(training=training).build()
    return [path[2:] for path, _ in broken_rules(run, TRAINING_RULES)]


def configs(simulation: Simulation) -> dict[str, StageConfig]:
    found = {str(bundle.step): bundle.config_map["data"]["stage.json"] for bundle in simulation.created}
    return {step: StageConfig.model_validate_json(text) for step, text in found.items()}


def test_stages_get_every_default_written_out() -> None:
    found = configs(until_training())
    fetch, train = found["fetch"].params, found["train of iteration 0"].params
    assert isinstance(fetch, FetchParams)
    assert isinstance(train, TrainParams)
    assert fetch.preflight is not None
    assert fetch.preflight.training == train.training
    assert train.training == a_run().build().spec.training.with_defaults()
    assert (train.training.micro_batch, train.training.tokens_per_micro_batch) == (4, 4096)
    assert train.training.lora is not None
    assert train.training.lora.is_auto
    assert train.training.learning_rate == 1e-5


def test_whole_weights_take_smaller_steps_by_default() -> None:
    assert TrainingSettings(method=TrainingMethod.FULL).with_defaults().learning_rate == 1e-6
    assert TrainingSettings(method=TrainingMethod.FULL, learning_rate=1e-5).with_defaults().learning_rate == 1e-5


@pytest.mark.parametrize(
    ("training", "digest"),
    [
        (STORED, "18d917fb1cbd0a01466099acfa22d4147b6aef5c58b95d2401ec6030e8ea57f5"),
        (
            {"backend": "Packed", "lora": {"targetModules": USUAL}},
            "18d917fb1cbd0a01466099acfa22d4147b6aef5c58b95d2401ec6030e8ea57f5",
        ),
        (
            {"backend": "TRL", "lora": {"targetModules": USUAL}},
            "6573305cae59cde990623952db2675657275fd001ddd94c05f79b6c674e04925",
        ),
        ({**STORED, "method": "Full"}, "50a9898e17f86f987bcc3643f5af0b8d012121543becd01ca1ac2bc2caaff2ed"),
        (
            {**STORED, "tokensPerMicroBatch": 2048, "lora": {"rank": 8, "targetModules": ["q_proj"]}},
            "d48e682cf9c2088dfe6897da070f2f5a0f43402adfb9475fbd2eaac0f096c29d",
        ),
    ],
)
def test_settings_that_are_written_out_keep_the_digests_of_version_0_1(training: dict[str, Any], digest: str) -> None:
    assert configs(until_training(**training))["train of iteration 0"].digest == f"sha256:{digest}"


@pytest.mark.parametrize("backend", ["Auto", "Packed", "TRL"])
@pytest.mark.parametrize("method", ["LoRA", "Full"])
def test_runs_that_were_stored_with_the_defaults_of_version_0_1_stay_valid(backend: str, method: str) -> None:
    assert broken(**{**STORED, "backend": backend, "method": method}) == []
    assert broken() == []


@pytest.mark.parametrize("settings", [{"microBatch": 2}, {"tokensPerMicroBatch": 512}])
def test_both_sizes_of_a_pass_may_be_given_where_fetch_chooses_the_backend(settings: dict[str, Any]) -> None:
    assert broken(**settings) == []
    assert broken(**settings, backend="Packed") + broken(**settings, backend="TRL") == [tuple(settings)]


def reporting(stage: Stage, choice: TrainingChoice) -> Any:
    """All Jobs succeed; those of one stage report a choice."""

    def fate(job: JobObservation) -> JobObservation:
        done = succeed(job)
        if job.stage is not stage:
            return done
        (result,) = done.results
        assert result is not None
        told = result.model_copy(update={"training": choice})
        return replace(done, results=(told,))

    return fate


@pytest.mark.parametrize("stage", [Stage.FETCH, Stage.TRAIN])
def test_the_choice_stands_in_the_status_and_reaches_the_model_card(stage: Stage) -> None:
    simulation = Simulation(a_run().with_iterations(1).build()).finish(reporting(stage, CHOICE))
    assert simulation.run.status.training == CHOICE
    exported = configs(simulation)["export"].params
    assert isinstance(exported, ExportParams)
    assert exported.training == CHOICE


def test_without_a_report_nothing_is_claimed_and_no_digest_changes() -> None:
    simulation = Simulation(a_run().with_iterations(1).build()).finish(succeed)
    assert simulation.run.status.training is None
    assert "training" not in configs(simulation)["export"].params.model_dump()


def test_the_status_of_a_run_on_this_machine_tells_the_choice(tmp_path: Path) -> None:
    run = a_run().build()
    (tmp_path / "run.json").write_text(run.with_status(run.status.evolve(training=CHOICE)).to_json())
    shown = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert [line.strip() for line in shown.stdout.splitlines()[1:3]] == CHOICE.describe()


def test_the_choice_in_lines_for_people() -> None:
    assert CHOICE.describe() == [
        "backend TRL (Auto: Packed does not compute layers of type linear_attention of M)",
        "adapter on q_proj, o_proj (Auto: M is a mixture of experts)",
    ]
    assert TrainingChoice(backend=TrainingBackend.PACKED).describe() == ["backend Packed"]
