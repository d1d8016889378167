"""The planner's rules, one table or sentence each."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from dynalign_contract.config import EvaluateParams, JudgeParams
from dynalign_contract.estimate import Estimate
from dynalign_contract.result import Metric, Outcome, StageResult
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.api.status import ConditionType, Phase, StagePhase
from dynalign_operator.planning import reasons
from dynalign_operator.planning.observed import Observed
from dynalign_operator.planning.plan import EventType
from dynalign_operator.planning.planner import plan, retry
from support.builders import T0, a_failure, a_job, a_result, a_run, minutes
from support.planning import condition, config_of, planned, started
from support.simulation import SETTINGS, Simulation, fail, succeed

ITERATION = ["prompts", "generate", "judge", "train", "evaluate"]


def test_the_whole_sequence() -> None:
    done = Simulation(a_run().with_iterations(2).build()).finish()
    assert done.steps_created() == [
        ("fetch", 1),
        *((f"{stage} of iteration {index}", 1) for index in (0, 1) for stage in ITERATION),
        ("export", 1),
    ]
    status = done.run.status
    assert (status.phase, status.progress, status.stage) == (Phase.SUCCEEDED, "2/2", None)
    assert condition(status, ConditionType.COMPLETED).status == "True"
    assert status.reward == 0.51
    assert status.win_rate == Estimate(value=0.51, low=0.41, high=0.61)
    assert status.best is not None
    assert (status.best.iteration, status.best.model_uri) == (1, "export-0")


def test_judge_and_evaluation_score_alike() -> None:
    done = Simulation(a_run().with_spec(judging={"aggregate": "Minimum", "minMass": 0.2}).build()).finish()
    params = [config_of(done, f"{stage} of iteration 0").params for stage in ("judge", "evaluate")]
    settings = [p.judging for p in params if isinstance(p, JudgeParams | EvaluateParams)]
    assert settings[0] == settings[1]
    assert settings[0].min_mass == 0.2


def test_a_finished_run_is_left_alone() -> None:
    done = Simulation(a_run().build()).finish()
    again = done.plan()
    assert (again.create, again.delete, again.events, again.wake_at) == ((), (), (), None)
    assert again.status == done.run.status


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        ({"prompts": {"refresh": "Once"}}, ["prompts of iteration 1", "prompts of iteration 2"]),
        ({"evaluation": {"every": 2}}, ["evaluate of iteration 0"]),
        ({"evaluation": {"every": 9}}, ["evaluate of iteration 0", "evaluate of iteration 1"]),
    ],
)
def test_stages_that_are_left_out(spec: dict[str, object], missing: list[str]) -> None:
    whole = [name for name, _ in Simulation(a_run().with_iterations(3).build()).finish().steps_created()]
    short = [
        name for name, _ in Simulation(a_run().with_iterations(3).with_spec(**spec).build()).finish().steps_created()
    ]
    assert [name for name in whole if name not in short] == missing


def test_the_next_job_is_created_in_the_plan_that_absorbs_the_last() -> None:
    run = started().run
    decided = planned(run, a_job(Stage.FETCH).succeeded().build(), after=minutes(1))
    assert [bundle.name for bundle in decided.create] == ["r-i000-prompts-a1"]
    assert decided.status.fetch is not None
    assert decided.status.fetch.phase is StagePhase.SUCCEEDED
    assert [event.reason for event in decided.events] == [reasons.STAGE_SUCCEEDED, reasons.STAGE_STARTED]


def test_warnings_of_a_stage_become_events_each_once() -> None:
    shards = [a_result(path=f"x/shard-{i}").model_copy(update={"warnings": ("rows were left out",)}) for i in range(2)]
    run = a_run().with_spec(generation={"shards": 2})
    before = Simulation(run.build()).until(Stage.GENERATE, 0)
    decided = planned(before.run, a_job(Stage.GENERATE, 0).succeeded(*shards).build(), after=minutes(10))
    warnings = [event for event in decided.events if event.reason == reasons.STAGE_WARNING]
    assert [(event.type, event.message) for event in warnings] == [
        (EventType.WARNING, "generate of iteration 0: rows were left out")
    ]


def test_what_results_had_no_room_for_is_told_once() -> None:
    metrics = tuple(Metric(name=f"aspect_reward/{index:030}", value=0.5) for index in range(60))
    shard = a_result(path="x").model_copy(update={"metrics": metrics})
    results = [StageResult.decode(shard.encode()) for _ in range(2)]
    before = Simulation(a_run().with_spec(generation={"shards": 2}).build()).until(Stage.GENERATE, 0)
    decided = planned(before.run, a_job(Stage.GENERATE, 0).succeeded(*results).build(), after=minutes(10))
    (warning,) = [event.message for event in decided.events if event.reason == reasons.STAGE_WARNING]
    assert "has no room for aspect_reward. manifest.json of the artifact has all metrics" in warning


def test_suspend_stops_the_job_and_resume_goes_on() -> None:
    simulation = Simulation(a_run().build()).until(Stage.TRAIN, 0)
    simulation.change_spec(suspend=True)
    stopped = simulation.plan()
    assert stopped.delete == ("r-i000-train-a1",)
    simulation.finish(succeed)
    assert simulation.run.status.phase is Phase.SUSPENDED
    assert condition(simulation.run.status, ConditionType.PROGRESSING).reason == reasons.SUSPENDED
    created = len(simulation.created)
    simulation.change_spec(suspend=False)
    simulation.finish(succeed)
    finished = simulation.run.status
    assert finished.phase is Phase.SUCCEEDED
    assert simulation.steps_created()[created] == ("train of iteration 0", 2)


def test_suspending_keeps_what_has_just_succeeded() -> None:
    run = started().run
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"suspend": True})})
    decided = planned(run, a_job(Stage.FETCH).succeeded().build())
    assert decided.status.fetch is not None
    assert decided.status.fetch.artifact is not None
    assert (decided.create, decided.status.phase) == ((), Phase.SUSPENDED)


def test_raising_iterations_continues_a_finished_run_and_exports_again() -> None:
    simulation = Simulation(a_run().with_iterations(1).build()).finish()
    created = len(simulation.created)
    simulation.change_spec(iterations=2)
    decided = simulation.plan()
    assert decided.status.export is not None
    assert (decided.status.export.artifact, decided.status.phase) == (None, Phase.RUNNING)
    assert condition(decided.status, ConditionType.COMPLETED).status == "False"
    simulation.finish()
    assert simulation.steps_created()[created:] == [
        *((f"{stage} of iteration 1", 1) for stage in ITERATION),
        ("export", 2),
    ]


def test_raising_iterations_stops_an_export_that_runs() -> None:
    simulation = Simulation(a_run().with_iterations(1).build()).until(Stage.EXPORT)
    simulation.change_spec(iterations=2)
    decided = simulation.plan()
    assert (decided.create, decided.delete) == ((), ("r-export-a1",))
    assert simulation.finish().steps_created()[-1] == ("export", 2)


@pytest.mark.parametrize(
    ("job", "policy", "after", "phase", "reason"),
    [
        (a_job(Stage.FETCH), {"pendingTimeout": "5m"}, 5, Phase.FAILED, reasons.PENDING_TIMEOUT),
        (a_job(Stage.FETCH), {"pendingTimeout": "5m"}, 4, Phase.PENDING, reasons.ON_TRACK),
        (a_job(Stage.FETCH).queued(), {"pendingTimeout": "5m"}, 60, Phase.PENDING, reasons.ON_TRACK),
        (a_job(Stage.FETCH).running(), {"stallTimeout": "5m", "retries": 0}, 5, Phase.FAILED, reasons.STALL_TIMEOUT),
        (a_job(Stage.FETCH).running(), {"stallTimeout": "5m", "retries": 1}, 5, Phase.PENDING, reasons.ON_TRACK),
        (
            a_job(Stage.FETCH).running().last_moved(T0 + minutes(3)),
            {"stallTimeout": "5m", "retries": 0},
            7,
            Phase.RUNNING,
            reasons.ON_TRACK,
        ),
        (a_job(Stage.FETCH).running(), {"deadline": "10m"}, 10, Phase.FAILED, reasons.DEADLINE_EXCEEDED),
    ],
)
def test_every_wait_has_an_end(job: object, policy: dict[str, object], after: float, phase: Phase, reason: str) -> None:
    observation = job.saying("0/3 nodes are available").build()  # type: ignore[attr-defined]
    decided = planned(started(**policy).run, observation, after=minutes(after))
    assert decided.status.phase is phase
    stalled = condition(decided.status, ConditionType.STALLED)
    assert stalled.reason == reason
    if phase is Phase.FAILED:
        assert decided.delete == ("r-fetch-a1",)
    if reason == reasons.PENDING_TIMEOUT:
        assert "0/3 nodes are available" in stalled.message
    if phase is not Phase.FAILED:
        assert decided.wake_at is not None


def test_a_stalled_job_has_to_be_gone_before_the_next_begins() -> None:
    simulation = started(stallTimeout="5m", retries=1)
    simulation.jobs["r-fetch-a1"] = a_job(Stage.FETCH).running().build()
    simulation.now += minutes(6)
    assert simulation.plan().delete == ("r-fetch-a1",)
    waiting = simulation.plan()
    assert (waiting.create, waiting.delete) == ((), ())
    del simulation.jobs["r-fetch-a1"]
    assert [bundle.name for bundle in simulation.plan().create] == ["r-fetch-a2"]


def test_the_deadline_starts_anew_when_a_suspended_run_goes_on() -> None:
    simulation = started(deadline="1h")
    simulation.change_spec(suspend=True)
    simulation.finish(succeed)
    simulation.now += timedelta(days=30)
    simulation.change_spec(suspend=False)
    assert simulation.finish().run.status.phase is Phase.SUCCEEDED


def test_a_lost_job_is_created_again_under_its_name() -> None:
    simulation = started()
    simulation.lose("r-fetch-a1")
    assert [bundle.name for bundle in simulation.plan().create] == ["r-fetch-a1"]


def test_a_status_that_lags_behind_its_jobs_catches_up() -> None:
    run = started().run
    decided = planned(
        run, a_job(Stage.FETCH).failed(1).build(), a_job(Stage.FETCH).of_attempt(2).running().build(), after=minutes(1)
    )
    assert (decided.create, decided.delete) == ((), ())
    assert decided.status.fetch is not None
    assert (decided.status.fetch.attempt, decided.status.fetch.failures) == (2, 1)


def test_jobs_of_other_steps_are_stopped_before_anything_is_created() -> None:
    decided = planned(a_run().build(), a_job(Stage.TRAIN, 5).running().build(), a_job(Stage.EXPORT).deleting().build())
    assert (decided.create, decided.delete) == ((), ("r-i005-train-a1",))
    assert decided.wake_at is not None


OBJECTIVE: dict[str, Callable[[], dict[str, dict[str, str]]]] = {
    "does not exist": dict,
    "the key objective.yaml that spec.objective names is missing; add it, or write a key that is there": lambda: {
        "mine": {"other.yaml": ""}
    },
    "key objective.yaml, line 1: the text is not YAML": lambda: {"mine": {"objective.yaml": "name: [1"}},
    "key objective.yaml: preamble is missing; write a text.": lambda: {"mine": {"objective.yaml": "name: x"}},
    "spec.objective names is missing; it is empty": lambda: {"mine": {}},
}


@pytest.mark.parametrize("sentence", OBJECTIVE)
def test_an_objective_that_cannot_be_read_holds_the_run(sentence: str) -> None:
    run = a_run().with_spec(objective={"configMapRef": {"name": "mine"}}).build()
    decided = plan(Observed(run, (), OBJECTIVE[sentence]()), T0, SETTINGS)
    stalled = condition(decided.status, ConditionType.STALLED)
    assert (stalled.status, stalled.reason) == ("True", reasons.BAD_OBJECTIVE)
    assert sentence in stalled.message
    assert decided.create == ()
    assert decided.wake_at is not None


def test_a_status_without_an_artifact_that_is_needed_fails_the_run() -> None:
    simulation = Simulation(a_run().build()).until(Stage.GENERATE, 0)
    broken = simulation.run.status.iterations[0].model_copy(update={"prompts": None})
    status = simulation.run.status.model_copy(update={"iterations": (broken,)})
    decided = planned(simulation.run.model_copy(update={"status": status}), after=minutes(9))
    stalled = condition(decided.status, ConditionType.STALLED)
    assert (decided.status.phase, stalled.reason) == (Phase.FAILED, reasons.MISSING_ARTIFACT)
    assert "status.iterations[0].prompts" in stalled.message


def test_progress_and_estimate() -> None:
    simulation = Simulation(a_run().with_iterations(3).build()).until(Stage.TRAIN, 1)
    half = a_job(Stage.TRAIN, 1).running(simulation.now, (31, 50)).build()
    simulation.jobs[half.name] = half
    decided = simulation.plan()
    assert decided.status.progress == "2/3 train 62%"
    assert decided.status.estimated_completion_time == simulation.now + minutes(7)


def test_old_iterations_are_shortened_and_nothing_that_is_needed_is_lost() -> None:
    done = Simulation(a_run().with_iterations(14).build()).finish()
    iterations = done.run.status.iterations
    assert [bool(entry.stages) for entry in iterations] == [False] * 4 + [True] * 10
    assert all(entry.prompts and entry.policy and entry.win_rate for entry in iterations)
    history = config_of(done, "prompts of iteration 13").inputs
    assert [name for name in history if name.startswith("history-")] == [f"history-{index:03d}" for index in range(13)]


def test_shards_become_one_artifact_with_weighted_metrics() -> None:
    simulation = Simulation(a_run().with_shards(2).build()).until(Stage.JUDGE, 0)
    results = (a_result(rows=3, digit="a", reward=0.2), a_result(rows=1, digit="b", reward=0.6))
    job = a_job(Stage.JUDGE, 0).succeeded(*results).build()
    decided = planned(simulation.run, job, after=minutes(9))
    judged = next(entry for entry in decided.status.iterations[0].stages if entry.stage is Stage.JUDGE)
    assert judged.artifact is not None
    assert (judged.artifact.path, judged.artifact.shards, judged.artifact.rows) == ("iterations/000/judgements", 2, 4)
    assert decided.status.reward == pytest.approx(0.3)


def of_pod(path: str, *, useful: float, outcome: Outcome = Outcome.SUCCEEDED, **metrics: float) -> StageResult:
    """The result of a pod of the evaluation, which tells of its own useful time."""
    numbers = {"useful_seconds": useful, **metrics}
    found = tuple(Metric(name=name, value=value) for name, value in numbers.items())
    return a_result(path=path).model_copy(update={"outcome": outcome, "metrics": found})


SHARES = [f"iterations/000/evaluation-shares/abc/shard-{index:03d}" for index in range(3)]
JOINED = "iterations/000/evaluation"


@pytest.mark.parametrize(
    ("results", "useful"),
    [
        ([of_pod(SHARES[0], useful=1), of_pod(SHARES[1], useful=2), of_pod(JOINED, useful=4, win_rate=0.6)], 7.0),
        ([of_pod(JOINED, useful=4, win_rate=0.6), of_pod(SHARES[1], useful=2), of_pod(SHARES[2], useful=1)], 7.0),
        # found by all as it is: the manifest, whose metrics they report, tells of all shards
        ([of_pod(JOINED, useful=7, win_rate=0.6, outcome=Outcome.SKIPPED)] * 3, 7.0),
        # one pod was replaced after another had joined
        (
            [
                of_pod(JOINED, useful=9, win_rate=0.6, outcome=Outcome.SKIPPED),
                of_pod(JOINED, useful=4, win_rate=0.6),
                of_pod(SHARES[2], useful=3),
            ],
            7.0,
        ),
    ],
    ids=["the last one joins", "another one joins", "an earlier attempt's", "one comes back late"],
)
def test_shares_that_are_joined_become_one_artifact_with_its_own_metrics(
    results: list[StageResult], useful: float
) -> None:
    simulation = Simulation(a_run().with_shards(3).build()).until(Stage.EVALUATE, 0)
    decided = planned(simulation.run, a_job(Stage.EVALUATE, 0).succeeded(*results).build(), after=minutes(9))
    (iteration,) = decided.status.iterations[:1]
    assert iteration.evaluation is not None
    assert (iteration.evaluation.path, iteration.evaluation.shards) == (JOINED, 1)
    entry = next(entry for entry in iteration.stages if entry.stage is Stage.EVALUATE)
    values = {metric.name: metric.value for metric in entry.metrics}
    assert (values["win_rate"], values["useful_seconds"]) == (0.6, useful)


def test_shares_that_nobody_has_joined_are_no_artifact_and_the_stage_is_tried_again() -> None:
    simulation = Simulation(a_run().with_shards(3).build()).until(Stage.EVALUATE, 0)
    job = a_job(Stage.EVALUATE, 0).succeeded(*(of_pod(path, useful=1) for path in SHARES)).build()
    decided = planned(simulation.run, job, after=minutes(9))
    assert [bundle.attempt for bundle in decided.create] == [2]
    assert any("none of them has joined" in event.message for event in decided.events)


def test_after_damage_everything_is_looked_at_again_and_the_run_goes_on() -> None:
    simulation = Simulation(a_run().with_iterations(2).build()).until(Stage.JUDGE, 1)
    damaged = a_failure(11, "x is damaged", reason="CorruptArtifact")
    simulation.finish(lambda job: replace(fail(job, 11), results=(damaged,)))
    assert simulation.run.status.phase is Phase.FAILED
    stalled = next(c for c in simulation.run.status.conditions if c.type is ConditionType.STALLED)
    assert stalled.reason == reasons.CORRUPT_ARTIFACT

    before = len(simulation.created)
    simulation.run = retry(simulation.run)
    simulation.finish()
    assert simulation.run.status.phase is Phase.SUCCEEDED
    again = simulation.steps_created()[before:]
    looked_at = ["fetch", *(f"{s} of iteration 0" for s in ITERATION_STAGES), "prompts of iteration 1"]
    assert again[: len(looked_at)] == [(step, 2) for step in looked_at]
    assert ("judge of iteration 1", 2) in again
    assert not any(s.verify_again for i in simulation.run.status.iterations for s in i.stages)
