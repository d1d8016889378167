"""What bench-iteration reads from a run's status, and how variants are compared."""

from datetime import timedelta

import pytest

from benchmarks import iteration
from benchmarks.iteration import Figures, Size, build_run, compare, in_turn, read_figures, summarise
from dynalign_contract.goodput import DeviceTime, StageGoodput
from dynalign_contract.result import Metric
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import IterationStatus, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from support.builders import T0


@pytest.mark.parametrize("variant", iteration.VARIANTS)
def test_the_run_of_every_variant_is_valid_and_of_the_size_that_was_asked_for(variant: str) -> None:
    spec = AlignmentRun.model_validate(build_run(variant, Size(prompts=4, candidates=2, tokens=16, iterations=1))).spec
    assert (spec.prompts.per_iteration, spec.generation.candidates, spec.generation.max_tokens) == (4, 2, 16)
    assert spec.iterations == 1


def test_runs_alternate_and_every_round_turns_their_order() -> None:
    assert list(in_turn(["A", "B"], 2)) == [(0, "A"), (0, "B"), (1, "B"), (1, "A")]


def test_time_between_stages_is_outside_and_no_stage_reserves_it() -> None:
    stages = tuple(
        StageStatus(
            stage=stage,
            start_time=T0 + timedelta(seconds=start),
            completion_time=T0 + timedelta(seconds=start + 10),
            metrics=(Metric(name="useful_seconds", value=useful),),
            goodput=StageGoodput(attempt=1, seconds=DeviceTime(reserved=10, useful=useful, waiting=10 - useful)),
        )
        for stage, start, useful in ((Stage.GENERATE, 0, 6), (Stage.JUDGE, 15, 8))
    )
    (found,) = read_figures("A", [IterationStatus(index=2, stages=stages), IterationStatus(index=1)])
    assert (found.index, found.wall, found.useful, found.outside) == (2, 25, 14, 11)
    assert found.goodput == pytest.approx(0.7)


def test_the_last_variant_is_compared_with_the_first() -> None:
    figures = [
        Figures("A", 0, wall=100, useful=40, devices=DeviceTime(reserved=80, useful=40)),
        Figures("B", 0, wall=60, useful=45, devices=DeviceTime(reserved=50, useful=45)),
        Figures("B", 1, wall=50, useful=45, devices=DeviceTime(reserved=50, useful=45)),
        Figures("A", 1, wall=120, useful=40, devices=DeviceTime(reserved=80, useful=40)),
    ]
    assert compare(figures) == {"wall": 0.5, "goodput": 0.9, "outside": round(10 / 55, 3)}
    assert summarise(figures)["A.goodput"] == 0.5
