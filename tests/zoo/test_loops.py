"""The whole loop with the random model of a family: two iterations of `dynalign run` on this machine's CPU."""

from pathlib import Path

import pytest

from dynalign_contract.metrics import TrainMetrics
from dynalign_contract.settings import Thinking
from zoo.exported import AGREES, check_export
from zoo.families import Family
from zoo.loop import ITERATIONS, Loop, run_loop
from zoo.loop_records import LoopRecord, LoopRecords, measured
from zoo.loop_table import LOOPS

pytestmark = pytest.mark.slow

DIFFERS = 1e-2
"""Nats; a hundred times what the order of computation makes."""
IN_EVERY_TEST = {("Qwen3", Thinking.OFF), ("Qwen3", Thinking.ON), ("gpt-oss, in BFloat16", Thinking.ON)}
"""Loops of the documentation's first files, which `make test` runs too."""


@pytest.fixture
def records(request: pytest.FixtureRequest) -> LoopRecords:
    return LoopRecords(update=request.config.getoption("--update-goldens"))


@pytest.mark.parametrize(
    ("family", "thinking"),
    [
        pytest.param(
            family,
            thinking,
            id=f"{family.name}-{thinking}",
            marks=() if (family.name, thinking) in IN_EVERY_TEST else pytest.mark.zoo,
        )
        for family, thinking in LOOPS
    ],
)
def test_a_family_goes_through_the_whole_loop(
    family: Family, thinking: Thinking, tmp_path: Path, records: LoopRecords
) -> None:
    loop = run_loop(family, thinking, tmp_path)
    differences = loop.train_metric(TrainMetrics.logprob_difference)
    # a random model that was trained once may leave all its thoughts unfinished: equal answers, of which nothing is learnt
    learned = ITERATIONS if thinking is Thinking.OFF else 1
    assert len(differences) >= learned
    assert max(differences) < AGREES
    assert sum(steps > 0 for steps in loop.train_metric(TrainMetrics.trained_steps)) >= learned
    if thinking is Thinking.ON:
        assert thoughts_that_end(loop) > 0

    export = check_export(loop)
    assert export.answers_as_trained, export
    assert export.distance > DIFFERS

    choice = loop.run.status.training
    assert choice is not None
    numbers = measured(logprob_difference=max(differences), policy_distance=export.distance)
    records.check(LoopRecord(family=family.name, thinking=thinking, backend=choice.backend, measured=numbers))


def thoughts_that_end(loop: Loop) -> int:
    """Candidates with a thought and an answer."""
    return sum(bool(row.get("thought")) and bool(row["text"]) for row in loop.rollouts(0))
