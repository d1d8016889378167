"""`rollout: Auto`, the default, never changes the kind of Jobs of a run that has begun with separate ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.stages import ITERATION_STAGES, ROLLOUT_STAGES, Stage
from dynalign_operator.api.status import Phase
from dynalign_operator.api.v1alpha1 import AlignmentRun, Rollout
from dynalign_operator.clusters.kubernetes.runs import parse_run
from dynalign_operator.clusters.local.workdir import Workdir, merge_run, write_run
from dynalign_operator.planning.planner import retry
from dynalign_operator.planning.waiting import explain_wait
from support.builders import RunBuilder, a_job, a_run
from support.planning import exits, fate_of
from support.simulation import Simulation

SEPARATE = a_run().with_spec(rollout="Separate").with_iterations(3)


def silent(builder: RunBuilder = SEPARATE) -> RunBuilder:
    """The run of a user who says nothing of it."""
    return RunBuilder({name: value for name, value in builder.spec.items() if name != "rollout"}, builder.metadata)


def test_a_new_run_that_says_nothing_has_rollouts() -> None:
    simulation = Simulation(silent().build()).finish()
    assert {bundle.step.stage for bundle in simulation.created}.isdisjoint(ROLLOUT_STAGES)
    assert "rollout of iteration 2" in dict(simulation.steps_created())


@pytest.mark.parametrize("iteration", [0, 1])
@pytest.mark.parametrize("stage", ITERATION_STAGES)
def test_a_default_that_changes_under_a_run_changes_none_of_its_jobs(stage: Stage, iteration: int) -> None:
    undisturbed = Simulation(SEPARATE.build()).finish()
    simulation = Simulation(SEPARATE.build()).until(stage, iteration)
    simulation.change_spec(rollout=silent().build().spec.rollout)
    simulation.finish()
    assert simulation.steps_created() == undisturbed.steps_created()
    assert [b.job["spec"] for b in simulation.created] == [b.job["spec"] for b in undisturbed.created]


def test_a_run_that_has_failed_and_is_tried_again_goes_on_so() -> None:
    simulation = Simulation(SEPARATE.with_policy(retries=0).build()).finish(fate_of("judge of iteration 1", exits(1)))
    assert simulation.run.status.phase is Phase.FAILED
    simulation.change_spec(rollout=Rollout.AUTO)
    simulation.run = retry(simulation.run)
    assert Stage.ROLLOUT not in {bundle.step.stage for bundle in simulation.finish().created}
    assert simulation.run.status.phase is Phase.SUCCEEDED


def test_whoever_wants_rollouts_says_so() -> None:
    simulation = Simulation(SEPARATE.build()).until(Stage.TRAIN, 0)
    simulation.change_spec(rollout=Rollout.FUSED)
    simulation.until(Stage.TRAIN, 1)
    simulation.change_spec(rollout=Rollout.AUTO)
    steps = [step for step, _ in simulation.finish().steps_created()]
    assert [step for step in steps if step.startswith("rollout")] == [
        "rollout of iteration 1",
        "rollout of iteration 2",
    ]


@pytest.mark.parametrize("spec", [{"rollout": "Separate"}, {}])
def test_a_stored_run_goes_on_with_its_jobs_whatever_its_api_server_had_filled_in(spec: dict[str, Any]) -> None:
    """A server that knew the field has stored its default of then; one that did not fills in today's."""
    begun = Simulation(SEPARATE.stored().build()).until(Stage.JUDGE, 1)
    stored = begun.run.model_dump(mode="json", by_alias=True)
    stored["spec"] = {name: value for name, value in stored["spec"].items() if name != "rollout"} | spec
    begun.run = parse_run(stored)
    assert begun.run.spec.rollout is (Rollout.SEPARATE if spec else Rollout.AUTO)
    assert Stage.ROLLOUT not in {bundle.step.stage for bundle in begun.finish().created}


def test_a_working_folder_of_an_earlier_version_goes_on_with_its_jobs(tmp_path: Path) -> None:
    """The folder has the default of then, the file says nothing."""
    begun = Simulation(SEPARATE.build()).until(Stage.GENERATE, 1)
    write_run(Workdir(tmp_path), begun.run)
    begun.run = merge_run(Workdir(tmp_path), silent().build())
    assert begun.run.spec.rollout is Rollout.AUTO
    assert Stage.ROLLOUT not in {bundle.step.stage for bundle in begun.finish().created}


def test_the_field_that_a_wait_names_is_that_of_the_jobs_that_are_there() -> None:
    def remedy(run: AlignmentRun) -> str:
        job = replace(a_job(Stage.JUDGE, 0).saying("0/1 nodes are available").build(), reason="Unschedulable")
        return explain_wait(run, job)

    begun = Simulation(SEPARATE.build()).until(Stage.JUDGE, 0)
    begun.change_spec(rollout=Rollout.AUTO)
    assert remedy(begun.run) == remedy(SEPARATE.build())
    assert "spec.stages.judge" in remedy(begun.run)
