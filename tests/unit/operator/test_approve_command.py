"""Approving a run of this machine: `dynalign approve`, what `describe` and `top` show, and the question of `run`."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dynalign_contract.stages import Stage
from dynalign_operator.api.approvals import APPROVAL_ANNOTATION, Decision, Gate, parse_request
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.cli.ask import ask_for_approval
from dynalign_operator.cli.main import app
from dynalign_operator.cli.sample import read_sample
from dynalign_operator.cli.terminal import open_console
from dynalign_operator.clusters.local.approving import read_decision, user_name
from dynalign_operator.clusters.local.cluster import open_local_cluster
from dynalign_operator.clusters.local.workdir import Workdir, locked, read_run, write_run
from support.builders import T0, a_run
from support.report_runs import WorkFolder
from support.simulation import Simulation, succeed
from support.snapshots import rendered

FOLDER = Path("runs/r")
WORKDIR = Workdir(FOLDER)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and neither a kubeconfig nor a cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "160"})


def waiting(gate: str, stage: Stage) -> Simulation:
    simulation = Simulation(a_run().with_iterations(1).with_policy(approval=[gate]).build())
    for _ in range(40):
        simulation.step(succeed)
        if simulation.run.status.awaited_approval is not None:
            assert simulation.run.status.stage is stage
            return simulation
    raise AssertionError("the run waits for nobody")


@pytest.fixture
def run() -> AlignmentRun:
    """A working folder whose run waits before its training, with the answers that are to be approved."""
    WorkFolder(iterations=1, last_stage=Stage.JUDGE, answer="Answer\x1b[31m").write(FOLDER)
    simulation = waiting("BeforeTrain", Stage.TRAIN)
    write_run(WORKDIR, simulation.run)
    return simulation.run


def test_describe_shows_what_is_approved_and_how(run: AlignmentRun) -> None:
    said = invoke("describe", "r")
    words = " ".join(said.stdout.split())
    assert said.exit_code == 0
    assert "The run waits for a person's approval (BeforeTrain) and holds no GPU." in words
    assert "Then `dynalign approve runs/r`, or with --reject REASON." in words
    assert "Judged answers of iteration 0: the first 3 of 3 prompts:" in said.stdout
    assert "best 0." in said.stdout
    assert "\x1b" not in said.stdout
    assert "Running (awaits approval)" in invoke("top", "--local").stdout


def test_a_watch_of_a_run_that_waits_ends_with_20(run: AlignmentRun) -> None:
    assert invoke("watch", "r").exit_code == 20


@pytest.mark.parametrize(
    ("arguments", "decision", "reason"),
    [((), Decision.APPROVED, ""), (("--reject", "too flattering"), Decision.REJECTED, "too flattering")],
)
def test_approve_leaves_a_decision_that_the_run_finds(
    run: AlignmentRun, arguments: tuple[str, ...], decision: Decision, reason: str
) -> None:
    said = invoke("approve", "r", *arguments)
    assert said.exit_code == 0, said.output
    assert "`dynalign run FILE`" in said.stdout
    request = parse_request(read_decision(WORKDIR) or "")
    assert run.status.awaited_approval is not None
    assert request.fits(run.status.awaited_approval)
    assert (request.decision, request.reason, request.by) == (decision, reason, user_name())
    with open_local_cluster(FOLDER, run, cache=Path("cache").absolute(), clock=lambda: T0) as cluster:
        observed = asyncio.run(cluster.observe(cluster.key))
    assert observed is not None
    assert observed.run.metadata.annotations[APPROVAL_ANNOTATION] == request.to_text()


def test_a_run_may_be_approved_while_a_process_works_on_it(run: AlignmentRun) -> None:
    with locked(WORKDIR):
        before = WORKDIR.run_file.read_bytes()
        assert "The run goes on." in invoke("approve", "r").stdout
        assert WORKDIR.run_file.read_bytes() == before, "it belongs to that process"


def test_a_run_that_waits_for_nobody_is_not_approved() -> None:
    WORKDIR.root.mkdir(parents=True)
    write_run(WORKDIR, Simulation(a_run().build()).until(Stage.TRAIN, 0).run)
    said = invoke("approve", "r")
    assert said.exit_code == 11
    assert "waits for no approval now (spec.policy.approval names no gate; phase Running)" in said.stderr
    assert read_decision(WORKDIR) is None


def test_a_reason_that_is_too_long_is_a_sentence(run: AlignmentRun) -> None:
    said = invoke("approve", "r", "--reject", "x" * 2000)
    assert said.exit_code == 1
    assert "reason" in said.stderr
    assert read_decision(WORKDIR) is None


@pytest.mark.parametrize(
    ("typed", "decision"), [("y\n", Decision.APPROVED), ("No\n", Decision.REJECTED), ("\n", None), ("", None)]
)
def test_the_question_of_run(run: AlignmentRun, typed: str, decision: Decision | None) -> None:
    with CliRunner().isolation(input=typed) as (out, *_):
        assert ask_for_approval(open_console(), run, FOLDER) is (decision is not None)
        shown = out.getvalue().decode()
    assert "Judged answers of iteration 0" in shown
    assert "the judged answers that iteration 0 would train on?" in shown
    text = read_decision(WORKDIR)
    assert (None if text is None else parse_request(text).decision) == decision


def test_before_the_export_the_held_out_answers_are_shown() -> None:
    WorkFolder(iterations=1).write(FOLDER)
    run = waiting("BeforeExport", Stage.EXPORT).run
    awaited = run.status.awaited_approval
    assert awaited is not None
    assert awaited.gate is Gate.BEFORE_EXPORT
    sample = read_sample(FOLDER, awaited)
    assert sample is not None
    assert "held-out answers changed" in rendered(sample, 120)


def test_a_sample_that_cannot_be_read_stops_nothing(run: AlignmentRun) -> None:
    for part in FOLDER.glob("iterations/000/rollouts/*.parquet"):
        part.write_bytes(b"broken")
    assert invoke("describe", "r").exit_code == 0
    assert read_run(WORKDIR) == run
