"""The planner's small policies, each alone: names, retries, inputs and weights of the stages."""

from datetime import timedelta
from typing import Any

import pytest

from dynalign_contract.config import ExportParams, FetchParams, JudgeParams, StageConfig, TrainParams
from dynalign_contract.settings import Checkpoints, Quantized
from dynalign_contract.stages import SIDE_STAGES, Stage
from dynalign_operator.planning import reasons
from dynalign_operator.planning.names import MAX_NAME, job_name
from dynalign_operator.planning.observed import JobObservation, Step
from dynalign_operator.planning.results import failure_message
from dynalign_operator.planning.retries import Judgement, Verdict, judge_failure, pause_before_retry
from support.builders import RunBuilder, a_failure, a_job, a_run
from support.simulation import Simulation, succeed


@pytest.mark.parametrize(
    ("run", "step", "attempt", "name"),
    [
        ("r", Step(Stage.FETCH), 1, "r-fetch-a1"),
        ("ca-qwen3-8b", Step(Stage.JUDGE, 3), 2, "ca-qwen3-8b-i003-judge-a2"),
        ("r", Step(Stage.TRAIN, 1000), 1, "r-i1000-train-a1"),
    ],
)
def test_names(run: str, step: Step, attempt: int, name: str) -> None:
    assert job_name(run, step, attempt) == name


def test_long_names_fit_and_stay_distinct() -> None:
    runs = ["x" * 62 + end for end in "ab"] + ["a-" * 31 + "b"]
    names = {job_name(run, Step(stage, 999), attempt) for run in runs for stage in Stage for attempt in (1, 12)}
    assert len(names) == len(runs) * len(Stage) * 2
    assert max(map(len, names)) <= MAX_NAME
    assert not any("--" in name for name in names)


@pytest.mark.parametrize(
    ("code", "reason", "failures", "judgement"),
    [
        (1, "", 0, Judgement(Verdict.COUNTED)),
        (1, "", 1, Judgement(Verdict.COUNTED)),
        (1, "", 2, Judgement(Verdict.GIVE_UP, reasons.RETRIES_EXHAUSTED)),
        (None, "", 0, Judgement(Verdict.COUNTED)),
        (137, "Disrupted", 2, Judgement(Verdict.FREE)),
        (12, "Disrupted", 2, Judgement(Verdict.FREE)),
        (143, "", 2, Judgement(Verdict.FREE)),
        (10, "", 0, Judgement(Verdict.GIVE_UP, reasons.BAD_CONFIG)),
        (11, "", 0, Judgement(Verdict.GIVE_UP, reasons.BAD_INPUT)),
        (12, "", 0, Judgement(Verdict.GIVE_UP, reasons.UNFIT)),
    ],
)
def test_verdicts(code: int | None, reason: str, failures: int, judgement: Judgement) -> None:
    assert judge_failure(code, reason, failures=failures, retries=2, restarted_shards=False) == judgement


def test_pauses_grow_to_five_minutes() -> None:
    seconds = [pause_before_retry(failures).total_seconds() for failures in range(9)]
    assert seconds == [0, 0, 10, 20, 40, 80, 160, 300, 300]
    assert pause_before_retry(100) == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("code", "result", "sentence"),
    [
        (11, a_failure(11, "part-00001.parquet is damaged"), "part-00001.parquet is damaged"),
        (137, None, "Job r-fetch-a1 ended with exit code 137 (signal 9) and left no result; its log tells more."),
        (3, None, "Job r-fetch-a1 ended with exit code 3 and left no result; its log tells more."),
        (0, None, "Job r-fetch-a1 ended without a result that can be read; its log tells more."),
    ],
)
def test_why_a_job_failed(code: int, result: object, sentence: str) -> None:
    assert failure_message(a_job(Stage.FETCH).failed(code, result).build()) == sentence  # type: ignore[arg-type]


def configs(run: RunBuilder) -> dict[str, StageConfig]:
    """The StageConfig of every step of a run in which all goes well."""
    return {
        str(bundle.step): StageConfig.model_validate_json(bundle.config_map["data"]["stage.json"])
        for bundle in Simulation(run.build()).finish().created
    }


@pytest.mark.parametrize(
    ("step", "inputs"),
    [
        ("fetch", []),
        ("prompts of iteration 0", ["model"]),
        ("prompts of iteration 2", ["model", "heldout", "history-000", "history-001", "iteration-001"]),
        ("generate of iteration 0", ["model", "prompts"]),
        ("generate of iteration 2", ["model", "prompts", "iteration-001"]),
        ("judge of iteration 2", ["model", "rollouts", "iteration-001"]),
        ("train of iteration 0", ["model", "rollouts", "judgements"]),
        ("train of iteration 2", ["model", "rollouts", "judgements", "iteration-001"]),
        ("evaluate of iteration 0", ["model", "heldout", "iteration-000"]),
        ("evaluate of iteration 2", ["model", "heldout", "answers", "iteration-002", "iteration-001"]),
        ("export", ["model", "iteration-002"]),
    ],
)
def test_inputs(step: str, inputs: list[str]) -> None:
    assert list(configs(a_run().with_iterations(3))[step].inputs) == inputs


@pytest.mark.parametrize(
    ("judging", "judges"),
    [
        ({"judge": "Live"}, ["base", "iteration-000", "iteration-001", "iteration-002"]),
        ({"judge": "Base"}, ["base", "base", "base", "base"]),
        ({"judge": "Lagged", "lag": 2}, ["base", "base", "base", "iteration-000"]),
    ],
)
def test_who_judges(judging: dict[str, object], judges: list[str]) -> None:
    made = configs(a_run().with_iterations(4).with_spec(judging=judging))
    assert [made[f"judge of iteration {i}"].params.judge.version for i in range(4)] == judges  # type: ignore[union-attr]


def test_which_weights_several_judges_are() -> None:
    server = {"url": "http://vllm:8000/v1", "model": "big"}
    judges = [
        {"name": "self", "judge": "Live"},
        {"name": "base", "judge": "Base"},
        {"name": "before", "judge": "Lagged", "lag": 2},
        {"name": "outside", "judge": "Endpoint", "endpoint": server},
    ]
    made = configs(a_run().with_iterations(4).with_spec(judging={"judges": judges}))["judge of iteration 3"]
    assert isinstance(made.params, JudgeParams)
    assert {name: policy.version for name, policy in made.params.policies.items()} == {
        "self": "iteration-002",
        "base": "base",
        "before": "iteration-000",
    }
    assert made.params.judge.version == "base"
    assert list(made.inputs) == ["model", "rollouts", "iteration-002", "iteration-000"]


@pytest.mark.parametrize(
    ("export", "version"), [({"policy": "Best"}, "iteration-002"), ({"policy": "Last"}, "iteration-003")]
)
def test_what_is_exported(export: dict[str, object], version: str) -> None:
    """Iterations 2 and 3 are evaluated, and the last one is the worse of the two."""

    def fate(job: JobObservation) -> JobObservation:
        return succeed(job, win_rate=0.1) if job.step == Step(Stage.EVALUATE, 3) else succeed(job)

    run = a_run().with_iterations(4).with_spec(export=export, evaluation={"every": 3}).build()
    last = Simulation(run).finish(fate).created[-1]
    params = StageConfig.model_validate_json(last.config_map["data"]["stage.json"]).params
    assert isinstance(params, ExportParams)
    assert params.policy.version == version
    assert [entry.index for entry in params.iterations] == [0, 1, 2, 3]


def test_when_checkpoints_are_saved_is_told_and_decides_nothing_about_the_policy() -> None:
    """Training that is interrupted goes on from its checkpoint, also with checkpoints at other times."""

    def training(**written: Any) -> tuple[Checkpoints, str]:
        config = next(c for c in configs(a_run().with_spec(training=written)).values() if c.stage is Stage.TRAIN)
        assert isinstance(config.params, TrainParams)
        return config.params.checkpoints, config.digest

    by_default, by_time = training(), training(checkpointMinutes=30)
    assert by_default[0] == Checkpoints(minutes=10)
    assert by_time[0] == Checkpoints(minutes=30)
    assert by_default[1] == by_time[1]
    assert training(checkpointSteps=2)[0] == Checkpoints(steps=2)
    assert training(checkpointSteps=2, checkpointMinutes=5)[0] == Checkpoints(steps=2, minutes=5)


def test_every_stage_is_told_how_chats_are_rendered() -> None:
    chat = {"thinking": "On", "arguments": {"reasoning_effort": "low", "depth": 3}, "systemPrompt": "Be kind."}
    made = configs(a_run().with_spec(model={"uri": "hf://a/b", "chat": chat}))
    assert {config.params.stage for config in made.values()} == set(Stage) - SIDE_STAGES - {Stage.ROLLOUT}
    for config in made.values():
        assert config.chat.thinking == "On"
        assert config.chat.values == {"reasoning_effort": "low", "depth": 3}
        assert config.chat.system_prompt == "Be kind."


def test_prompts_that_are_written_once_serve_every_iteration() -> None:
    made = configs(a_run().with_iterations(3).with_spec(prompts={"refresh": "Once"}))
    first = made["generate of iteration 0"].inputs["prompts"]
    assert [made[f"generate of iteration {i}"].inputs["prompts"] for i in (1, 2)] == [first, first]


def test_fetch_brings_the_data_of_the_tasks_that_do_not_ship_with_dynalign() -> None:
    tasks = ["dynalign_choices", "ifeval", "gsm8k"]
    made = configs(a_run().with_spec(evaluation={"capability": {"tasks": tasks}}))
    assert isinstance(made["fetch"].params, FetchParams)
    assert made["fetch"].params.tasks == ("ifeval", "gsm8k")


def test_fetch_alone_is_told_what_to_do_with_quantised_weights() -> None:
    model = {"uri": "hf://openai/gpt-oss-20b"}
    refusing = configs(a_run().with_spec(model=model))
    converting = configs(a_run().with_spec(model={**model, "quantized": "Dequantize"}))
    assert isinstance(converting["fetch"].params, FetchParams)
    assert converting["fetch"].params.quantized is Quantized.DEQUANTIZE
    assert [name for name in converting if converting[name].digest != refusing[name].digest] == ["fetch"]


def test_an_attempt_does_not_change_the_digest_of_its_configuration() -> None:
    config = configs(a_run())["train of iteration 0"]
    assert config.digest == config.model_copy(update={"attempt": 7}).digest
