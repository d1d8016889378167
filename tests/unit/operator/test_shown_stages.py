"""The table of stages while a rollout runs: from what its process says to the line that a person reads."""

from dataclasses import replace

import pytest
from rich.console import Console

from dynalign_contract.stages import PART_STAGES, Stage
from dynalign_operator.api.v1alpha1 import Rollout
from dynalign_operator.cli.tables import progress_table
from dynalign_operator.clusters.stage_metrics import combine_progress, parse_metrics
from dynalign_operator.planning.observed import JobObservation
from dynalign_trainer.runtime.session import Session
from dynalign_trainer.runtime.telemetry import Share
from support.builders import a_run
from support.simulation import Simulation, fail


def at(part: Stage, job: JobObservation) -> JobObservation:
    """The Job whose process is at a part, as its metrics say."""
    session = Session(root=None, policies=(), share=Share(PART_STAGES.index(part), len(PART_STAGES)))  # type: ignore[arg-type]
    telemetry = session.telemetry(part)
    telemetry.progress(1, 10)
    return replace(job, progress=combine_progress([parse_metrics(telemetry.text())]))


def table_of(simulation: Simulation) -> list[str]:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(progress_table(simulation.run))
    return [" ".join(line.split()) for line in captured.get().splitlines()]


@pytest.mark.parametrize(
    ("part", "before", "own"),
    [
        (Stage.EVALUATE, "▶ evaluate", "· prompts · generate · judge · train · evaluate"),
        (Stage.PROMPTS, "✓ evaluate", "▶ prompts · generate · judge · train · evaluate"),
        (Stage.GENERATE, "✓ evaluate", "✓ prompts ▶ generate · judge · train · evaluate"),
        (Stage.JUDGE, "✓ evaluate", "✓ prompts ✓ generate ▶ judge · train · evaluate"),
    ],
)
def test_the_stage_that_a_rollout_is_at_runs_and_no_other(part: Stage, before: str, own: str) -> None:
    simulation = Simulation(a_run().with_spec(rollout="Fused").with_iterations(2).build()).until(Stage.ROLLOUT, 1)
    simulation.step(lambda job: at(part, job))
    simulation.plan()
    assert table_of(simulation) == [
        f"iteration 1/2 ✓ prompts ✓ generate ✓ judge ✓ train {before}",
        f"iteration 2/2 {own}",
    ]
    assert f"rollout: {part} " in simulation.run.status.progress


def test_a_part_is_forgotten_with_its_attempt() -> None:
    simulation = Simulation(a_run().with_spec(rollout="Fused").with_iterations(2).build()).until(Stage.ROLLOUT, 1)
    simulation.step(lambda job: at(Stage.JUDGE, job))
    simulation.step(lambda job: fail(job, 1))
    simulation.plan()
    assert table_of(simulation) == [
        "iteration 1/2 ✓ prompts ✓ generate ✓ judge ✓ train · evaluate",
        "iteration 2/2 · prompts · generate · judge · train · evaluate",
    ]
    simulation.until(Stage.TRAIN, 1)
    assert table_of(simulation)[0].endswith("✓ evaluate wins 50%")


def test_prompts_that_are_written_once_are_no_part_of_a_later_iteration() -> None:
    builder = a_run().with_spec(rollout="Fused", prompts={"refresh": "Once"}).with_iterations(2)
    simulation = Simulation(builder.build()).until(Stage.ROLLOUT, 1)
    simulation.step(lambda job: job)
    simulation.plan()
    assert table_of(simulation)[1] == "iteration 2/2 · prompts ▶ generate ▶ judge · train · evaluate"


def test_a_rollout_that_was_given_up_for_separate_jobs_is_seen_no_more() -> None:
    simulation = Simulation(a_run().with_spec(rollout="Fused").with_iterations(1).build()).until(Stage.ROLLOUT, 0)
    simulation.step(lambda job: at(Stage.JUDGE, job))
    simulation.change_spec(rollout=Rollout.SEPARATE)
    simulation.until(Stage.GENERATE, 0)
    assert table_of(simulation) == ["iteration 1/1 ✓ prompts · generate · judge · train · evaluate"]
