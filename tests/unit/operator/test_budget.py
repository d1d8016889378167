"""A budget of GPU-hours: where a run is held, what its message says, and that a higher budget lets it go on."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dynalign_contract.accelerators import Hardware
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.settings import EvaluationSettings
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.api.status import AlignmentRunStatus, ConditionType, Phase
from dynalign_operator.api.v1alpha1 import Budget
from dynalign_operator.cli.drive import exit_code_of, is_over
from dynalign_operator.cli.main import app
from dynalign_operator.cli.situation import explain_situation, remark_on
from dynalign_operator.clusters.local.workdir import Workdir, write_run
from dynalign_operator.clusters.run_source import ListedRun, RunPlace, RunSnapshot
from dynalign_operator.estimate.run_estimate import estimate_run
from dynalign_operator.estimate.shapes import known_shape
from dynalign_operator.planning import reasons
from dynalign_operator.planning.budget import budget_note, used_gpu_hours
from dynalign_operator.planning.notifications import due_notifications
from dynalign_operator.planning.planner import retry
from dynalign_operator.runfile.run_file import parse_run_file
from support.approvals import decide
from support.builders import T0, a_run
from support.planning import condition
from support.report_runs import WorkFolder
from support.simulation import SETTINGS, Fate, Simulation, disrupt, fail, succeed

NO_GPU = {"resources": {"limits": {"nvidia.com/gpu": "0"}}}
UNKNOWN = "hf://some/model"
KNOWN = "hf://Qwen/Qwen3-8B"


def with_budget(hours: float, *, model: str = UNKNOWN, iterations: int = 3, **policy: Any) -> Simulation:
    run = a_run().with_iterations(iterations).with_spec(model={"uri": model})
    return Simulation(run.with_policy(budget={"gpuHours": hours}, **policy).build())


def lasting(minutes: int, fate: Fate = succeed) -> Fate:
    """What becomes of a Job whose container has run for so long."""
    return lambda job: fate(replace(job, start_time=(job.last_progress_time or T0) - timedelta(minutes=minutes)))


def until_held(simulation: Simulation, fate: Fate) -> AlignmentRunStatus:
    simulation.finish(fate)
    return simulation.run.status


def raise_budget(simulation: Simulation, hours: float) -> None:
    policy = simulation.run.spec.policy.model_copy(update={"budget": Budget(gpu_hours=hours)})
    simulation.change_spec(policy=policy)


def asked_for(status: AlignmentRunStatus) -> float:
    """The budget that the message asks for."""
    found = re.search(r"gpuHours to ([\d.]+) or more", condition(status, ConditionType.STALLED).message)
    assert found is not None
    return float(found[1])


def test_the_stage_that_would_exceed_the_budget_is_not_started() -> None:
    """A stage takes an hour of one GPU; six fit, and the seventh would be the second one of its kind."""
    simulation = with_budget(6.5)
    status = until_held(simulation, lasting(60))
    assert used_gpu_hours(status) == pytest.approx(6, abs=1e-3)
    assert simulation.steps_created()[-1] == ("prompts of iteration 1", 1)
    stalled = condition(status, ConditionType.STALLED)
    assert (stalled.status, stalled.reason) == ("True", reasons.BUDGET_EXCEEDED)
    for words in ("is 6.5", f"used {used_gpu_hours(status):.1f} GPU-hours", "generate of iteration 1", "about 1.0"):
        assert words in stalled.message
    assert (status.phase, status.progress) == (Phase.RUNNING, "2/3 generate held by budget")
    assert status.estimated_completion_time is None
    assert [event.reason for event in simulation.events].count(reasons.BUDGET_EXCEEDED) == 1
    assert (is_over(status), exit_code_of(status)) == (True, 21)


def test_a_higher_budget_lets_it_go_on_with_a_new_clock_and_nothing_is_done_twice() -> None:
    simulation = with_budget(6.5, deadline="24h")
    held = until_held(simulation, lasting(60))
    simulation.now += timedelta(days=30)
    assert simulation.plan().status == held, "the wait has no end"
    simulation.run = retry(simulation.run)
    assert simulation.plan().status == held, "a command given again changes nothing"
    raise_budget(simulation, asked_for(held))
    simulation.step(lasting(60))
    assert simulation.steps_created()[-1] == ("generate of iteration 1", 1)
    assert simulation.run.status.start_time == simulation.run.status.iterations[1].stages[1].start_time
    raise_budget(simulation, 1000)
    simulation.finish(lasting(60))
    assert simulation.run.status.phase is Phase.SUCCEEDED
    assert len(set(simulation.steps_created())) == len(simulation.created) == 2 + 3 * 5


def test_a_budget_that_is_raised_too_little_holds_on() -> None:
    simulation = with_budget(6.5)
    held = until_held(simulation, lasting(60))
    raise_budget(simulation, 6.6)
    simulation.finish(lasting(60))
    assert asked_for(simulation.run.status) == asked_for(held)
    assert [event.reason for event in simulation.events].count(reasons.BUDGET_EXCEEDED) == 1


@pytest.mark.parametrize("minutes", [1, 60, 6_000_007])
def test_the_budget_that_is_asked_for_is_enough_whatever_its_size(minutes: int) -> None:
    simulation = with_budget(minutes / 60 * 1.5, iterations=1)
    held = until_held(simulation, lasting(minutes))
    raise_budget(simulation, asked_for(held))
    simulation.step(lasting(minutes))
    assert len(simulation.created) == 4


def test_attempts_that_led_to_nothing_count() -> None:
    simulation = with_budget(3, retries=50)
    status = until_held(simulation, lasting(60, lambda job: succeed(job) if job.stage is Stage.FETCH else disrupt(job)))
    assert used_gpu_hours(status) == pytest.approx(3, abs=1e-3)
    assert {step for step, _ in simulation.steps_created()} <= {"fetch", "prompts of iteration 0"}


def test_what_has_just_ended_counts_before_the_next_stage_is_started() -> None:
    """In one and the same plan a stage is absorbed and the next one is decided about."""
    simulation = with_budget(1)
    until_held(simulation, lasting(90))
    assert simulation.steps_created()[-1] == ("prompts of iteration 0", 1)


def test_the_first_iteration_of_a_known_model_is_estimated() -> None:
    shape = known_shape(KNOWN)
    assert shape is not None
    run = with_budget(1, model=KNOWN).run
    stages = {entry.stage: entry for entry in estimate_run(run.spec, None, shape, Hardware.H100).stages}
    hours = stages[Stage.PROMPTS].gpu_seconds / 3600
    held = until_held(with_budget(0.9 * hours, model=KNOWN), lasting(1))
    message = condition(held, ConditionType.STALLED).message
    assert "prompts of iteration 0 is estimated" in message
    assert "H100" in message
    simulation = with_budget(1.1 * hours, model=KNOWN)
    simulation.until(Stage.PROMPTS, 0)
    assert simulation.steps_created()[-1] == ("prompts of iteration 0", 1)


def test_stages_without_gpus_and_machines_without_gpus_are_never_held() -> None:
    spec = {"stages": {str(stage): NO_GPU for stage in ITERATION_STAGES}}
    run = a_run().with_policy(budget={"gpuHours": 0.001}).with_spec(**spec).build()
    assert "no stage uses a GPU" in budget_note(run)
    assert Simulation(run).finish(lasting(60)).run.status.phase is Phase.SUCCEEDED
    without = with_budget(0.001)
    assert budget_note(without.run) == ""
    without.settings = replace(SETTINGS, has_gpus=False)
    assert without.finish(lasting(60)).run.status.phase is Phase.SUCCEEDED


def test_dynalign_run_ends_with_21_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DYNALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("dynalign_operator.cli.drive.has_gpus", lambda: True)
    spec = {"model": {"uri": "bundled://smollm2-135m-instruct"}, "policy": {"budget": {"gpuHours": 1}}}
    run = {"apiVersion": "dynalign.io/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": "r"}, "spec": spec}
    Path("run.yaml").write_text(yaml.safe_dump(run))
    simulation = Simulation(parse_run_file(Path("run.yaml").read_text()).run)
    assert until_held(simulation, lasting(20)).stage is Stage.TRAIN
    folder = Workdir(Path("runs/r"))
    WorkFolder(iterations=1, last_stage=Stage.JUDGE).write(folder.root)
    metadata = simulation.run.metadata.model_copy(update={"resource_version": "1"})
    write_run(folder, simulation.run.model_copy(update={"metadata": metadata}))
    result = CliRunner().invoke(app, ["run", "run.yaml"])
    assert result.exit_code == ExitCode.OVER_BUDGET, result.output
    assert "r is held by its budget: spec.policy.budget.gpuHours is 1." in result.stdout
    assert "go on:" in result.stdout


@pytest.mark.parametrize(("is_cluster", "words"), [(True, "kubectl patch ar"), (False, "dynalign run FILE")])
def test_describe_and_the_live_page_say_what_is_used_and_what_to_do(is_cluster: bool, words: str) -> None:
    simulation = with_budget(6.5)
    until_held(simulation, lasting(60))
    place = RunPlace("here", "there", "r", is_cluster=is_cluster)
    said = explain_situation(RunSnapshot(simulation.run, place), (), simulation.now)
    assert any("of 6.5 GPU-hours" in sentence for sentence in said.does)
    assert any("held by its budget" in sentence for sentence in said.does)
    assert words in said.to_do[0]


def test_the_list_of_runs_says_it_in_a_word() -> None:
    simulation = with_budget(6.5)
    status = until_held(simulation, lasting(60))
    listed = ListedRun("r", "team", status, simulation.run, is_cluster=True)
    assert remark_on(listed) == reasons.BUDGET_EXCEEDED


def test_a_person_approves_first_and_the_approval_is_kept_while_the_budget_holds_the_run() -> None:
    simulation = with_budget(3, approval=["BeforeTrain"], iterations=1)
    simulation.finish(lasting(60))
    awaited = simulation.run.status.awaited_approval
    assert awaited is not None
    decide(simulation, awaited)
    status = until_held(simulation, lasting(60))
    assert (status.stage, status.awaited_approval) == (Stage.TRAIN, None)
    assert condition(status, ConditionType.STALLED).reason == reasons.BUDGET_EXCEEDED
    raise_budget(simulation, 10)
    simulation.finish(lasting(60))
    assert simulation.run.status.phase is Phase.SUCCEEDED
    assert len(simulation.run.status.approvals) == 1


def test_a_stage_that_comes_for_the_first_time_in_a_later_iteration_is_estimated() -> None:
    simulation = with_budget(8.001, model=KNOWN, iterations=2)
    simulation.run = simulation.run.model_copy(
        update={"spec": simulation.run.spec.model_copy(update={"evaluation": EvaluationSettings(every=2)})}
    )
    message = condition(until_held(simulation, lasting(60)), ConditionType.STALLED).message
    assert "evaluate of iteration 1 is estimated" in message


def test_webhooks_are_told() -> None:
    simulation = with_budget(6.5)
    hook = {"url": "https://hooks.example.com/x", "secretRef": {"name": "hook", "key": "key"}}
    simulation.run = simulation.run.model_copy(
        update={"spec": a_run().with_spec(notify=[hook], policy={"budget": {"gpuHours": 1}}).build().spec}
    )
    until_held(simulation, lasting(90))
    assert [due.occurrence.reason for due in due_notifications(simulation.run)] == [reasons.BUDGET_EXCEEDED]


ACTIONS = ("succeed", "succeed", "succeed", "wait", "disrupt", "fail", "suspend", "resume", "raise", "lose", "retry")


@settings(max_examples=30)
@given(
    st.floats(0.01, 20),
    st.sampled_from([UNKNOWN, KNOWN]),
    st.lists(st.sampled_from(ACTIONS), max_size=40),
)
def test_every_run_ends_or_is_held_and_ends_once_it_gets_what_it_asks_for(
    hours: float, model: str, actions: list[str]
) -> None:
    simulation = with_budget(hours, model=model, retries=1)
    fates = {"wait": lambda job: job, "disrupt": disrupt, "fail": lambda job: fail(job, 1)}
    for action in actions:
        match action:
            case "suspend" | "resume":
                simulation.change_spec(suspend=action == "suspend")
            case "raise":
                raise_budget(simulation, hours + 0.5)
            case "lose" if simulation.jobs:
                simulation.lose(sorted(simulation.jobs)[-1])
            case "retry":
                simulation.run = retry(simulation.run)
        simulation.step(fates.get(action, succeed))
    simulation.change_spec(suspend=False)
    simulation.finish(lasting(7))  # an attempt that had failed may end the run now
    for _ in range(len(ITERATION_STAGES) * 3 + 2):
        simulation.run = retry(simulation.run)
        simulation.finish(lasting(7))
        if simulation.run.status.phase is Phase.SUCCEEDED:
            break
        status = simulation.run.status
        assert condition(status, ConditionType.STALLED).reason == reasons.BUDGET_EXCEEDED
        settled = simulation.plan()
        assert (settled.status, settled.create, settled.delete, settled.events) == (status, (), (), ())
        before = len(simulation.created)
        raise_budget(simulation, asked_for(status))
        simulation.step(succeed)
        assert len(simulation.created) == before + 1
    assert simulation.run.status.phase is Phase.SUCCEEDED
