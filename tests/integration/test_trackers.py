"""The report stage writes a run's numbers to trackers: a real MLflow server, files for TensorBoard, runs of wandb."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from dynalign_contract.errors import BadConfigError
from dynalign_contract.layout import REPORT_FILE, TENSORBOARD_FOLDER, WANDB_FOLDER
from dynalign_contract.result import Outcome
from dynalign_contract.run_facts import RunFacts
from dynalign_contract.settings import MlflowSettings, WandbSettings
from dynalign_operator.clusters.local.processes import free_port
from dynalign_report.folder import read_reported_run
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.report.mlflow import MlflowServer as Client
from dynalign_trainer.report.mlflow import log_run
from dynalign_trainer.report.numbers import IterationNumbers, numbers_by_iteration
from dynalign_trainer.report.tensorboard import write_events
from dynalign_trainer.report.wandb import write_offline_runs
from support.builders import a_run
from support.mlflow_server import MlflowServer
from support.report_runs import a_work_folder
from support.report_stage import run_stage
from support.simulation import Simulation
from support.wandb_runs import OfflineRun, read_offline_runs

pytestmark = pytest.mark.slow

ANSWERS_TO = "127.0.0.1:*"
"""The name by which the tests ask whether it runs."""
FACTS = RunFacts(
    name="r",
    phase="Running",
    progress="3/3 train",
    configuration="---\ntraining:\n  learningRate: 1.0e-05\nmodel:\n  uri: bundled://tiny\n",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with MlflowServer(tmp_path_factory.mktemp("mlflow")).running() as running:
        yield running


@pytest.fixture
def numbers(tmp_path: Path) -> list[IterationNumbers]:
    """What three iterations have measured."""
    root = a_work_folder().of_size(3, 2, 2).write(tmp_path / "run")
    return numbers_by_iteration(read_reported_run(root, FACTS).stages, 2)


def settings(server: MlflowServer, experiment: str, **more: Any) -> MlflowSettings:
    return MlflowSettings(url=server.url, experiment=experiment, **more)


def tags(run: dict[str, Any]) -> dict[str, str]:
    return {entry["key"]: entry["value"] for entry in run["data"]["tags"]}


def log(server: MlflowServer, experiment: str, numbers: list[IterationNumbers], facts: RunFacts = FACTS) -> None:
    log_run(settings(server, experiment), "0123abcd", facts, numbers, {})


def test_a_parent_run_has_the_curves_and_a_nested_run_each_iteration(
    server: MlflowServer, numbers: list[IterationNumbers]
) -> None:
    log(server, "curves", numbers)
    parent, *nested = server.runs("curves")
    assert [tags(run)["dynalign.iteration"] for run in nested] == ["0", "1", "2"]
    assert {tags(run)["mlflow.parentRunId"] for run in nested} == {parent["info"]["run_id"]}
    assert [run["info"]["status"] for run in (parent, *nested)] == ["RUNNING", *(["FINISHED"] * 3)]
    rates = [(one.index, one.metrics["evaluate.win_rate"]) for one in numbers]
    assert server.history(parent["info"]["run_id"], "evaluate.win_rate") == rates
    assert {entry["key"]: entry["value"] for entry in nested[1]["data"]["metrics"]} == pytest.approx(
        dict(numbers[1].metrics)
    )
    assert tags(nested[1])["dynalign.artifact.train"] == numbers[1].artifacts["train"]
    assert {entry["key"]: entry["value"] for entry in parent["data"]["params"]}["training.learningRate"] == "1e-05"


def test_what_is_logged_again_is_there_once(server: MlflowServer, numbers: list[IterationNumbers]) -> None:
    log(server, "again", numbers[:1])
    log(server, "again", numbers[:2])
    changed = FACTS.model_copy(update={"configuration": FACTS.configuration.replace("1.0e-05", "1.0e-04")})
    log(server, "again", numbers, changed.model_copy(update={"phase": "Succeeded"}))
    parent, *nested = server.runs("again")
    assert [tags(run)["dynalign.iteration"] for run in nested] == ["0", "1", "2"]
    assert len(server.history(parent["info"]["run_id"], "judge.reward")) == 3
    assert all(len(server.history(run["info"]["run_id"], "judge.reward")) == 1 for run in nested)
    assert parent["info"]["status"] == "FINISHED"


def test_a_killed_stage_goes_on_where_it_stopped(
    server: MlflowServer, numbers: list[IterationNumbers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after each request in turn: the record is whole in the end, and nothing is in it twice."""
    whole = Client.call
    left = 0

    async def dying(self: Client, *args: Any, **fields: Any) -> Any:
        nonlocal left
        if left == 0:
            raise ConnectionAbortedError
        left -= 1
        return await whole(self, *args, **fields)

    monkeypatch.setattr(Client, "call", dying)
    for requests in range(1, 12):
        left = requests
        try:
            log(server, "killed", numbers[:1])
        except ConnectionAbortedError:
            continue
        break
    else:
        raise AssertionError("it never got to the end")
    parent, nested = server.runs("killed")
    assert nested["info"]["status"] == "FINISHED"
    assert len(server.history(parent["info"]["run_id"], "judge.reward")) == 1
    assert len(server.history(nested["info"]["run_id"], "judge.reward")) == 1


def test_a_server_that_is_down_is_an_error_and_gets_it_all_when_it_is_back(
    tmp_path: Path, numbers: list[IterationNumbers]
) -> None:
    away = MlflowServer(tmp_path / "away")
    with pytest.raises(EndpointError, match=rf"127\.0\.0\.1:{away.port}"):
        log_run(settings(away, "late", retries=0), "0123abcd", FACTS, numbers, {})
    with away.running():
        log(away, "late", numbers)
        assert len(away.runs("late")) == 4


def test_a_server_that_does_not_know_its_name_says_how_to_tell_it(
    tmp_path: Path, numbers: list[IterationNumbers]
) -> None:
    """By default MLflow is not to be called by the name of a Service."""
    with MlflowServer(tmp_path / "named").running("--allowed-hosts", f"mlflow.ml.svc,{ANSWERS_TO}") as named:
        url = named.url.replace("127.0.0.1", "localhost")
        with pytest.raises(BadConfigError, match=rf"`--allowed-hosts localhost:{named.port}`"):
            log_run(MlflowSettings(url=url), "0123abcd", FACTS, numbers, {})


def test_the_stage_writes_to_all_and_reports_a_server_that_is_down(tmp_path: Path, server: MlflowServer) -> None:
    """From the planner's Job to the trackers."""
    root = a_work_folder().write(tmp_path / "run")
    tracking = {"mlflow": {"url": server.url, "experiment": "stage"}, "tensorboard": {}, "wandb": {}}
    ended = Simulation(a_run().with_iterations(2).with_spec(tracking=tracking).build()).finish().reports
    assert run_stage(ended[-1], root).outcome is Outcome.SUCCEEDED
    assert run_stage(ended[-2], root).outcome is Outcome.SUCCEEDED
    parent, *nested = server.runs("stage")
    assert (tags(parent)["dynalign.run"], len(nested)) == ("r", 2)
    assert list((root / TENSORBOARD_FOLDER).iterdir())
    assert [len(run.history) for run in read_offline_runs(root / WANDB_FOLDER)] == [2, 1, 1]
    away = {"mlflow": {"url": f"http://127.0.0.1:{free_port()}", "retries": 0}, "tensorboard": {}}
    bundle = Simulation(a_run().with_iterations(2).with_spec(tracking=away).build()).finish().reports[-1]
    (root / REPORT_FILE).unlink()
    shutil.rmtree(root / TENSORBOARD_FOLDER)
    failed = run_stage(bundle, root)
    assert failed.error is not None
    assert "cannot be reached" in failed.error.message or "127.0.0.1" in failed.error.message
    assert failed.error.message.startswith("spec.tracking.mlflow was not written; report.html is up to date")
    assert (root / REPORT_FILE).is_file(), "the report comes first"
    assert list((root / TENSORBOARD_FOLDER).iterdir()), "one tracker does not wait for another"


def test_tensorboard_reads_each_number_once(tmp_path: Path, numbers: list[IterationNumbers]) -> None:
    root = tmp_path / "run"
    for count in (1, 2, 3):
        write_events(root, root / "report", numbers[:count])
    reader = EventAccumulator(str(root / TENSORBOARD_FOLDER), size_guidance={"tensors": 0})
    reader.Reload()
    assert "evaluate/win_rate" in reader.Tags()["tensors"]
    events = reader.Tensors("evaluate/win_rate")
    assert [event.step for event in events] == [0, 1, 2]
    values = [float(event.tensor_proto.float_val[0]) for event in events]
    assert values == pytest.approx([one.metrics["evaluate.win_rate"] for one in numbers])


def write_wandb(root: Path, numbers: list[IterationNumbers], facts: RunFacts = FACTS) -> list[OfflineRun]:
    write_offline_runs(WandbSettings(project="p"), "0123abcd", facts, numbers, root=root, scratch=root / "report")
    return read_offline_runs(root / WANDB_FOLDER)


def test_wandb_has_the_curves_and_a_run_for_each_iteration_in_one_group(
    tmp_path: Path, numbers: list[IterationNumbers]
) -> None:
    whole, *nested = write_wandb(tmp_path / "run", numbers, FACTS.model_copy(update={"best": "iteration 1"}))
    assert [run.id for run in (whole, *nested)] == ["0123abcd", *(f"0123abcd-{index}" for index in range(3))]
    assert {(run.project, run.group) for run in (whole, *nested)} == {("p", "r-0123abcd")}
    assert [run.job_type for run in (whole, *nested)] == ["run", *(["iteration"] * 3)]
    rates = [(row["_step"], row["evaluate.win_rate"]) for row in whole.history]
    assert rates == [(one.index, pytest.approx(one.metrics["evaluate.win_rate"])) for one in numbers]
    (row,) = nested[1].history
    assert {name: row[name] for name in numbers[1].metrics} == pytest.approx(dict(numbers[1].metrics))
    assert nested[1].config["dynalign.artifact.train"] == numbers[1].artifacts["train"]
    assert whole.config["training.learningRate"] == "1e-05"
    assert whole.summary["dynalign.best"] == "iteration 1"
    assert [run.exit_code for run in (whole, *nested)] == [0] * 4


def test_wandb_has_each_iteration_once_however_often_it_is_written(
    tmp_path: Path, numbers: list[IterationNumbers]
) -> None:
    root = tmp_path / "run"
    write_wandb(root, numbers[:1])
    first = {path.name for path in (root / WANDB_FOLDER).glob("*-0")}
    (root / "report" / "wandb-runs" / "left").mkdir(parents=True)  # by an attempt that was killed
    write_wandb(root, numbers[:2])
    failed = FACTS.model_copy(update={"phase": "Failed"})
    whole, *nested = write_wandb(root, numbers, failed)
    assert [len(run.history) for run in (whole, *nested)] == [3, 1, 1, 1]
    assert {path.name for path in (root / WANDB_FOLDER).glob("*-0")} == first, "a finished one is not written again"
    assert (whole.exit_code, nested[0].exit_code) == (1, 0)
    assert list((root / "report").iterdir()) == []


def test_a_killed_stage_leaves_whole_runs_of_wandb_and_the_next_writes_the_rest(
    tmp_path: Path, numbers: list[IterationNumbers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the move of each iteration's run, and of the one with the curves."""
    root, moves = tmp_path / "run", Path.replace
    for allowed in (0, 1, 1, 1, 0):
        left = allowed

        def dying(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left < 0:
                raise InterruptedError
            return moves(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            with pytest.raises(InterruptedError):
                write_wandb(root, numbers)
        assert all(run.exit_code == 0 for run in read_offline_runs(root / WANDB_FOLDER))
    assert [len(run.history) for run in write_wandb(root, numbers)] == [3, 1, 1, 1]


def test_a_missing_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(BadConfigError, match=r"spec\.tracking\.wandb needs the package wandb"):
        write_wandb(tmp_path / "run", [])
