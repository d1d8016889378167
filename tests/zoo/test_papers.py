"""The papers' own files on a CPU, with the random model of the same family: nothing but the model and sizes is set."""

from pathlib import Path

import pytest

from dynalign_contract.metrics import TrainMetrics
from dynalign_operator.cli.load import load_run_file
from zoo.exported import AGREES, check_export
from zoo.loop import ITERATIONS
from zoo.loop_records import LoopRecord, LoopRecords, measured
from zoo.papers import TWINS, Twin

SET = {
    *("model.uri", "iterations", "prompts.perIteration", "prompts.heldOut", "generation.maxTokens"),
    *("evaluation.every", "generation.shards", "training.gpusPerNode", "evaluation.capability", "judging.minMass"),
    "export.policy",
}
"""Fields of the specification in which a twin's run differs from the paper's."""
each_twin = pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.paper)


def leaves(value: object, path: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {path.removeprefix("."): value}
    return {place: leaf for key, item in value.items() for place, leaf in leaves(item, f"{path}.{key}").items()}


@each_twin
def test_a_twin_differs_from_the_paper_in_the_model_and_in_sizes_alone(twin: Twin, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    settings = [f"{field}={value}" for field, value in twin.settings(tmp_path).items()]
    theirs, ours = (
        leaves(load_run_file(twin.file, given).run.spec.model_dump(by_alias=True, mode="json", exclude_unset=True))
        for given in ((), settings)
    )
    differ = {path for path in theirs.keys() | ours.keys() if theirs.get(path) != ours.get(path)}
    assert {path if path in SET else path.rpartition(".")[0] for path in differ} <= SET
    assert "model.uri" in differ


@pytest.mark.slow
@pytest.mark.zoo
@each_twin
def test_a_papers_file_goes_through_the_whole_loop(twin: Twin, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    loop = twin.run(tmp_path)
    differences = loop.train_metric(TrainMetrics.logprob_difference)
    assert len(differences) == ITERATIONS
    assert max(differences) < AGREES
    assert all(steps > 0 for steps in loop.train_metric(TrainMetrics.trained_steps))

    export = check_export(loop)
    assert export.answers_as_trained, export
    assert export.distance > 0  # the papers' learning rates, for a few steps; equal weights would give 0 exactly

    choice, spec = loop.run.status.training, load_run_file(twin.file).run.spec
    assert choice is not None
    numbers = measured(logprob_difference=max(differences), policy_distance=export.distance)
    record = LoopRecord(
        family=twin.family.name, thinking=spec.model.chat.thinking, backend=choice.backend, measured=numbers
    )
    LoopRecords(update=request.config.getoption("--update-goldens")).check(record, twin.record)
