"""Which iteration is the best, why, and what follows when one got worse: by its win rate, or by its capability."""

from collections.abc import Mapping

import pytest

from dynalign_contract.config import ExportParams, StageConfig
from dynalign_contract.estimate import Estimate
from dynalign_contract.settings import OnRegression
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import BestIteration, ConditionType, Phase
from dynalign_operator.planning.observed import JobObservation
from support.builders import a_run
from support.simulation import Fate, Simulation, succeed

Numbers = Mapping[str, float | None]
LOSES: Numbers = {"win_rate": 0.3, "win_rate_low": 0.2, "win_rate_high": 0.4, "regressed": 1.0}
FORGETS: Numbers = {
    "win_rate": 0.9,
    "win_rate_low": 0.8,
    "win_rate_high": 1.0,
    "capability": 0.5,
    "capability_delta": -0.1,
    "capability_delta_low": -0.15,
    "capability_delta_high": -0.05,
    "regressed": 1.0,
}


def wins(rate: float, change: float = 0.0, preference: float = 0.6) -> Numbers:
    return {
        "win_rate": rate,
        "preference": preference,
        "win_rate_low": rate - 0.1,
        "win_rate_high": rate + 0.1,
        "capability": 0.6 + change,
        "capability_delta": change,
        "capability_delta_low": change - 0.05,
        "capability_delta_high": change + 0.05,
        "regressed": 0.0,
    }


def fate_of(*evaluations: Numbers) -> Fate:
    """The numbers of each iteration's evaluation."""

    def fate(job: JobObservation) -> JobObservation:
        return succeed(job, **evaluations[job.iteration or 0]) if job.stage is Stage.EVALUATE else succeed(job)

    return fate


def finished(*evaluations: Numbers, action: OnRegression = OnRegression.CONTINUE) -> Simulation:
    spec = {"onRegression": str(action), "capability": {"tasks": ["dynalign_choices"]}}
    run = a_run().with_iterations(len(evaluations)).with_spec(evaluation=spec).build()
    return Simulation(run).finish(fate_of(*evaluations))


def configs(simulation: Simulation) -> dict[str, StageConfig]:
    return {
        str(bundle.step): StageConfig.model_validate_json(bundle.config_map["data"]["stage.json"])
        for bundle in simulation.created
    }


def exported(simulation: Simulation) -> str:
    params = configs(simulation)["export"].params
    assert isinstance(params, ExportParams)
    return params.policy.version


def best_before_export(*evaluations: Numbers) -> BestIteration:
    simulation = Simulation(a_run().with_iterations(len(evaluations)).build())
    while simulation.run.status.stage is not Stage.EXPORT:
        simulation.step(fate_of(*evaluations))
    assert simulation.run.status.best is not None
    return simulation.run.status.best


@pytest.mark.parametrize(
    ("evaluations", "best", "reason"),
    [
        ((wins(0.6), wins(0.7), wins(0.65)), 1, "rate against the base model: 0.700 (0.600 to 0.800); capability"),
        ((wins(0.6), wins(0.7), wins(0.7)), 1, "capability changed by 0.000 (-0.050 to 0.050); the earliest of equals"),
        (
            (wins(0.7), wins(0.7, preference=0.8), wins(0.7)),
            1,
            "of 3 equals the one with the clearest preference, 0.800",
        ),
        ((wins(0.6), FORGETS, wins(0.55)), 0, "0.600"),
        ((LOSES, wins(0.55), FORGETS), 1, "0.550"),
    ],
    ids=["highest", "tie", "clearest", "capability lost", "last two"],
)
def test_the_best_iteration_and_why(evaluations: tuple[Numbers, ...], best: int, reason: str) -> None:
    done = finished(*evaluations)
    found = done.run.status.best
    assert found is not None
    assert found.iteration == best
    assert reason in found.reason
    assert exported(done) == f"iteration-{best:03d}"


@pytest.mark.parametrize("action", OnRegression)
def test_the_base_model_is_the_best_where_every_evaluated_iteration_is_worse(action: OnRegression) -> None:
    evaluations = (FORGETS,) if action is OnRegression.STOP else (LOSES, FORGETS, LOSES)
    done = finished(*evaluations, action=action)
    found = done.run.status.best
    assert found is not None
    assert (found.iteration, found.win_rate, found.model_uri) == (None, None, "export-0")
    highest = f"0.900 (0.800 to 1.000), of iteration {evaluations.index(FORGETS)}"
    assert found.reason == (
        f"every evaluated iteration is worse than the base model; the highest held-out win rate against it is {highest}"
    )
    assert exported(done) == "base"
    assert list(configs(done)["export"].inputs) == ["model"]
    assert done.plan().status == done.run.status


def test_until_the_export_the_best_is_where_its_policy_lies() -> None:
    sound, worse = (best_before_export(LOSES, evaluation) for evaluation in (wins(0.6), LOSES))
    assert (sound.iteration, sound.model_uri) == (1, "train of iteration 1-0")
    assert (worse.iteration, worse.model_uri) == (None, "fetch-0")


def test_the_last_policy_is_exported_where_that_is_asked_for_but_is_not_called_the_best() -> None:
    run = a_run().with_iterations(2).with_spec(export={"policy": "Last"}).build()
    done = Simulation(run).finish(fate_of(wins(0.6), LOSES))
    found = done.run.status.best
    assert found is not None
    assert exported(done) == "iteration-001"
    assert (found.iteration, found.model_uri) == (0, "train of iteration 0-0")


def test_before_an_evaluation_the_latest_is_the_best() -> None:
    run = a_run().with_iterations(4).with_spec(evaluation={"every": 4}).build()
    found = Simulation(run).until(Stage.TRAIN, 2).run.status.best
    assert found is not None
    assert (found.iteration, found.reason) == (1, "the latest; none has been evaluated yet")


def test_an_iteration_that_lost_capability_is_no_equal_of_one_that_did_not() -> None:
    found = finished(wins(0.9), FORGETS).run.status.best
    assert found is not None
    assert found.iteration == 0
    assert "equals" not in found.reason


@pytest.mark.parametrize("setback", [LOSES, FORGETS], ids=["win rate", "capability"])
@pytest.mark.parametrize(
    ("action", "begun", "start", "version"),
    [
        (OnRegression.CONTINUE, 4, "iteration-002", "iteration-003"),
        (OnRegression.STOP, 3, None, "iteration-001"),
        (OnRegression.ROLLBACK, 4, "iteration-001", "iteration-003"),
    ],
)
def test_what_a_setback_does(
    setback: Numbers, action: OnRegression, begun: int, start: str | None, version: str
) -> None:
    done = finished(wins(0.5), wins(0.6), setback, wins(0.65), action=action)
    assert done.run.status.phase is Phase.SUCCEEDED
    assert len(done.run.status.iterations) == begun
    assert exported(done) == version
    if start is not None:
        for stage in ("generate", "train", "evaluate"):
            assert start in configs(done)[f"{stage} of iteration 3"].inputs


def test_rollback_starts_from_base_when_nothing_sound_has_been_trained() -> None:
    made = configs(finished(FORGETS, wins(0.6), action=OnRegression.ROLLBACK))
    assert made["train of iteration 1"].params.policy.version == "base"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("setback", "words"),
    [
        (LOSES, "Iteration 1 loses against the base model, with a win rate of 0.300 (0.200 to 0.400); the loop stops"),
        (
            FORGETS,
            "has changed its capability by -0.100 (-0.150 to -0.050), a larger drop than evaluation.capability.maxDrop of 0.02",
        ),
        ({**FORGETS, **LOSES}, "a win rate of 0.300 (0.200 to 0.400) and has changed its capability by -0.100"),
    ],
    ids=["win rate", "capability", "both"],
)
def test_degraded_says_what_got_worse(setback: Numbers, words: str) -> None:
    status = finished(wins(0.5), setback, action=OnRegression.STOP).run.status
    degraded = next(c for c in status.conditions if c.type is ConditionType.DEGRADED)
    assert degraded.status == "True"
    assert words in degraded.message


@pytest.mark.parametrize(
    ("action", "evaluations", "words"),
    [
        (OnRegression.STOP, (wins(0.5), LOSES), "the loop stops here and exports iteration 0, the best one ("),
        (OnRegression.STOP, (LOSES,), "the loop stops here and exports the base model ("),
        (OnRegression.ROLLBACK, (LOSES, LOSES), "the next iteration starts from the base model ("),
        (OnRegression.CONTINUE, (LOSES, LOSES), "the run goes on all the same ("),
    ],
)
def test_degraded_says_what_follows(action: OnRegression, evaluations: tuple[Numbers, ...], words: str) -> None:
    status = finished(*evaluations, action=action).run.status
    assert words in next(c for c in status.conditions if c.type is ConditionType.DEGRADED).message


def test_the_base_model_is_examined_once_and_its_scores_handed_on() -> None:
    run = a_run().with_iterations(4).with_spec(evaluation={"every": 2, "capability": {"tasks": ["ifeval"]}}).build()
    done = Simulation(run).finish(fate_of(*[wins(0.6)] * 4))
    made = configs(done)
    assert "capability" not in made["evaluate of iteration 1"].inputs
    assert made["evaluate of iteration 3"].inputs["capability"] == done.run.status.iterations[1].evaluation


def test_without_tasks_nothing_is_handed_on() -> None:
    done = Simulation(a_run().with_iterations(2).build()).finish()
    assert "capability" not in configs(done)["evaluate of iteration 1"].inputs


def test_ratings_look_at_every_earlier_evaluation() -> None:
    run = a_run().with_iterations(4).with_spec(evaluation={"every": 2, "ratings": "BradleyTerry"}).build()
    done = Simulation(run).finish()
    inputs = configs(done)["evaluate of iteration 3"].inputs
    assert [name for name in inputs if name.startswith("evaluation-")] == ["evaluation-001"]
    assert inputs["evaluation-001"] == done.run.status.iterations[1].evaluation


def test_people_see_three_digits_and_the_iterations_keep_all() -> None:
    done = finished(wins(0.427168022502494, -0.0123456789))
    status = done.run.status
    assert status.win_rate == Estimate(value=0.427, low=0.327, high=0.527)
    assert status.capability_delta == Estimate(value=-0.012, low=-0.062, high=0.038)
    (kept,) = status.iterations
    assert kept.win_rate is not None
    assert kept.win_rate.value == 0.427168022502494
    assert kept.capability_delta is not None
    assert kept.capability_delta.value == -0.0123456789
    rounded = finished(wins(0.5, -0.0001)).run.status.capability_delta
    assert rounded is not None
    assert str(rounded.value) == "0.0"


def test_a_complete_run_is_planned_to_rest_with_its_numbers() -> None:
    done = finished(wins(0.6))
    before = done.run.status
    assert done.plan().status == before
