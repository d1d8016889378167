"""The report stage writes a run's numbers to trackers: a real MLflow server, and files that TensorBoard's reader reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from dynalign_contract.errors import BadConfigError
from dynalign_contract.layout import REPORT_FILE, TENSORBOARD_FOLDER
from dynalign_contract.result import Outcome
from dynalign_contract.run_facts import RunFacts
from dynalign_contract.settings import MlflowSettings
from dynalign_operator.clusters.local.processes import free_port
from dynalign_report.folder import read_reported_run
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.report.mlflow import MlflowServer as Client
from dynalign_trainer.report.mlflow import log_run
from dynalign_trainer.report.numbers import IterationNumbers, numbers_by_iteration
from dynalign_trainer.report.tensorboard import write_events
from support.builders import a_run
from support.mlflow_server import MlflowServer
from support.report_runs import a_work_folder
from support.report_stage import run_stage
from support.simulation import Simulation

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


def test_the_stage_writes_to_both_and_reports_a_server_that_is_down(tmp_path: Path, server: MlflowServer) -> None:
    """From the planner's Job to the trackers."""
    root = a_work_folder().write(tmp_path / "run")
    tracking = {"mlflow": {"url": server.url, "experiment": "stage"}, "tensorboard": {}}
    ended = Simulation(a_run().with_iterations(2).with_spec(tracking=tracking).build()).finish().reports
    assert run_stage(ended[-1], root).outcome is Outcome.SUCCEEDED
    assert run_stage(ended[-2], root).outcome is Outcome.SUCCEEDED
    parent, *nested = server.runs("stage")
    assert (tags(parent)["dynalign.run"], len(nested)) == ("r", 2)
    assert list((root / TENSORBOARD_FOLDER).iterdir())
    away = {"mlflow": {"url": f"http://127.0.0.1:{free_port()}", "retries": 0}}
    bundle = Simulation(a_run().with_iterations(2).with_spec(tracking=away).build()).finish().reports[-1]
    (root / REPORT_FILE).unlink()
    failed = run_stage(bundle, root)
    assert failed.error is not None
    assert "cannot be reached" in failed.error.message or "127.0.0.1" in failed.error.message
    assert (root / REPORT_FILE).is_file(), "the report comes first"


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
