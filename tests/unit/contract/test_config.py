"""StageConfig: what decides an artifact, and what does not."""

import json

import pytest
from pydantic import ValidationError

from dynalign_contract.config import (
    FetchParams,
    GenerateParams,
    JudgeParams,
    Policy,
    PromptsParams,
    StageConfig,
    TrainParams,
)
from dynalign_contract.layout import RunLayout, part_name, stage_folder
from dynalign_contract.objective import builtin_objective
from dynalign_contract.result import ArtifactRef
from dynalign_contract.settings import (
    DEFAULT_CHAT,
    ChatSettings,
    GenerationSettings,
    JudgingSettings,
    PromptSettings,
    Quantized,
    RewardSettings,
    RewardType,
    Thinking,
    TrainingSettings,
)
from dynalign_contract.stages import ITERATION_STAGES, Stage

FETCH = StageConfig(run="r", params=FetchParams(uri="bundled://smollm2-135m-instruct"))
GENERATE = StageConfig(run="r", iteration=2, params=GenerateParams(generation=GenerationSettings()))


def test_json_round_trip_keeps_the_digest() -> None:
    for config in (FETCH, GENERATE):
        back = StageConfig.model_validate_json(config.to_json())
        assert back == config
        assert back.digest == config.digest


def test_the_attempt_does_not_change_the_digest() -> None:
    assert FETCH.model_copy(update={"attempt": 7}).digest == FETCH.digest


def test_a_fetch_without_tasks_is_the_fetch_that_it_was_before_there_were_any() -> None:
    assert "tasks" not in FETCH.to_json()
    assert FETCH.digest == "sha256:b7bce54576b054d83be83fa77171b2f13db775304388a8710695fe71939ecfa5"
    assert isinstance(FETCH.params, FetchParams)
    with_task = FetchParams(uri=FETCH.params.uri, tasks=("ifeval",))
    assert FETCH.model_copy(update={"params": with_task}).digest != FETCH.digest


def test_a_fetch_that_refuses_quantised_weights_is_the_fetch_that_it_was() -> None:
    assert "quantized" not in FETCH.to_json()
    converting = FetchParams(uri="bundled://smollm2-135m-instruct", quantized=Quantized.DEQUANTIZE)
    assert FETCH.model_copy(update={"params": converting}).digest != FETCH.digest


def test_a_run_that_says_nothing_of_chats_is_the_run_that_it_was() -> None:
    assert "chat" not in GENERATE.to_json()
    assert GENERATE.digest == "sha256:88da8128eb6b0710dfb2fe1b512820967fd9b78fc09f8f81a2041af4b3e37e39"
    assert GENERATE.model_copy(update={"chat": DEFAULT_CHAT}).digest == GENERATE.digest


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"chat": ChatSettings(thinking=Thinking.ON)},
        {"chat": ChatSettings(arguments={"reasoning_effort": "low"})},
        {"chat": ChatSettings(system_prompt="Be kind.")},
        {"iteration": 3},
        {"inputs": {"prompts": ArtifactRef(path="p", digest="sha256:" + "1" * 64)}},
        {"params": GenerateParams(generation=GenerationSettings(temperature=0.5))},
        {"params": GenerateParams(generation=GenerationSettings(), policy=Policy(version="iteration-001"))},
    ],
)
def test_whatever_decides_the_contents_changes_the_digest(change: dict[str, object]) -> None:
    assert GENERATE.model_copy(update=change).digest != GENERATE.digest


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"iteration": 0}, "has no iteration"),
        ({"shards": 2}, "is not sharded"),
        ({"schemaVersion": 2}, "less than or equal to 1"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], message: str) -> None:
    data = {"run": "r", "params": {"stage": "fetch", "uri": "/m"}, **fields}
    with pytest.raises(ValidationError, match=message):
        StageConfig.model_validate(data)


def test_layout_names(tmp_path) -> None:  # type: ignore[no-untyped-def]
    names = [stage_folder(stage, 3) for stage in ITERATION_STAGES]
    assert names == [f"iterations/003/{name}" for name in ("prompts", "rollouts", "judgements", "policy", "evaluation")]
    assert RunLayout(tmp_path).model == tmp_path / stage_folder(Stage.FETCH)
    assert GENERATE.model_copy(update={"shards": 4}).shard(3) == "iterations/002/rollouts/shard-003"
    assert GENERATE.shard(0) == "iterations/002/rollouts"
    assert part_name(17) == "part-00017.parquet"
    with pytest.raises(ValueError, match="belongs to an iteration"):
        stage_folder(Stage.JUDGE)


def test_a_run_without_rewards_has_the_digests_of_one_that_knows_none() -> None:
    """Fields with their defaults are left out of the files, as if they had never been added."""
    objective = builtin_objective("collective-agency")
    judge = JudgeParams(objective=objective, judging=JudgingSettings(), max_tokens=8, prompts_per_part=1)
    prompts = PromptsParams(objective=objective, prompts=PromptSettings(), reserve_tokens=8)
    assert not {"rewards", "weight", "columns"} & _names(json.loads(judge.to_json()) | json.loads(prompts.to_json()))
    short = RewardSettings(name="short", type=RewardType.LENGTH, max=9)
    assert not {"endpoint", "entryPoint", "columns", "batchSize"} & _names(json.loads(short.to_json()))
    assert {"rewards", "weight"} <= _names(json.loads(judge.model_copy(update={"rewards": (short,)}).to_json()))


def test_a_run_with_one_judge_has_the_digests_of_one_that_knows_no_other() -> None:
    objective = builtin_objective("collective-agency")
    judge = JudgeParams(objective=objective, judging=JudgingSettings(), max_tokens=8, prompts_per_part=1)
    new = {"judges", "combine", "minJudges", "noise", "policies"}
    assert not new & _names(json.loads(judge.to_json()))
    several = JudgingSettings.model_validate(
        {
            "judges": [{"name": "a", "judge": "Live"}, {"name": "b", "judge": "Base"}],
            "combine": "Median",
            "minJudges": 1,
            "noise": "Disagreement",
        }
    )
    changed = judge.model_copy(update={"judging": several, "policies": {"a": Policy(), "b": Policy()}})
    assert new <= _names(json.loads(changed.to_json()))


@pytest.mark.parametrize(
    ("change", "goes_on"),
    [
        ({"nodes": 2}, True),
        ({"gpus_per_node": 4}, True),
        ({"tokens_per_micro_batch": 64}, True),
        ({"micro_batch": 1}, True),
        ({"gradient_checkpointing": False}, True),
        ({"learning_rate": 1e-3}, False),
        ({"prompts_per_step": 1}, False),
        ({"zero_stage": 3}, False),
    ],
)
def test_checkpoints_outlive_changes_of_how_training_is_divided(change: dict[str, object], goes_on: bool) -> None:
    training = TrainingSettings()
    configs = [
        StageConfig(run="r", iteration=0, params=TrainParams(training=settings, temperature=1.0, max_tokens=8))
        for settings in (training, training.model_copy(update=change))
    ]
    assert configs[0].digest != configs[1].digest
    assert (configs[0].progress_digest == configs[1].progress_digest) is goes_on


def _names(node: object) -> set[str]:
    """Every name in a JSON document."""
    if isinstance(node, dict):
        return set(node).union(*map(_names, node.values()))
    return set().union(*map(_names, node)) if isinstance(node, list) else set()
