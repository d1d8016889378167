"""`engine.replicas`: what the pods ask for is what their stages use, and everything that counts GPUs counts the same."""

from types import SimpleNamespace
from typing import Any

import pytest

from dynalign_contract.accelerators import Hardware
from dynalign_contract.config import Policy, StageConfig
from dynalign_contract.objective import builtin_objective
from dynalign_contract.stages import Stage
from dynalign_operator.estimate.run_estimate import RunEstimate, StageEstimate, estimate_run
from dynalign_operator.estimate.shapes import known_shape
from dynalign_operator.manifests.build_settings import BuildSettings, PodSettings
from dynalign_operator.planning.goodput import count_devices
from dynalign_operator.planning.plan import JobBundle
from dynalign_operator.planning.rehearsal import rehearse
from dynalign_trainer.evaluate.earlier_answers import sampling_digest
from dynalign_trainer.models.device_shares import share_gpus
from dynalign_trainer.models.thoughts import Lengths
from support.builders import T0, RunBuilder, a_run
from support.stage_bundles import first_bundles

SETTINGS = BuildSettings(pods=PodSettings())
ENGINE = {"tensorParallel": 2, "replicas": 4}


def bundles(run: RunBuilder) -> dict[Stage, JobBundle]:
    return first_bundles(run, lambda given: rehearse(given, {}, T0, SETTINGS))


def gpus_of(bundle: JobBundle) -> int:
    (container,) = bundle.job["spec"]["template"]["spec"]["containers"]
    return int(container["resources"].get("limits", {}).get("nvidia.com/gpu", 0))


def test_a_pod_asks_for_the_gpus_that_its_stage_shares_out() -> None:
    run = a_run().with_spec(engine=ENGINE, training={"gpusPerNode": 3})
    found = bundles(run)
    for stage in (Stage.ROLLOUT, Stage.PROMPTS, Stage.GENERATE, Stage.JUDGE, Stage.EVALUATE):
        config = StageConfig.model_validate_json(found[stage].config_map["data"]["stage.json"])
        asked = gpus_of(found[stage])
        assert asked == count_devices(run.build(), stage, SETTINGS) == 8
        shares = share_gpus(config.engine, asked, None)
        seen = [gpu for share in shares for gpu in share.environment["CUDA_VISIBLE_DEVICES"].split(",")]
        assert len(shares) == ENGINE["replicas"]
        assert sorted(seen, key=int) == [str(gpu) for gpu in range(asked)], "every GPU has one engine"
    assert gpus_of(found[Stage.TRAIN]) == 3
    assert gpus_of(found[Stage.FETCH]) == 0


def test_what_engines_have_made_is_taken_over_whatever_their_number() -> None:
    def configs(replicas: int) -> dict[Stage, StageConfig]:
        found = bundles(a_run().with_spec(engine={**ENGINE, "replicas": replicas}))
        texts = {stage: bundle.config_map["data"]["stage.json"] for stage, bundle in found.items()}
        return {stage: StageConfig.model_validate_json(text) for stage, text in texts.items()}

    def held_out(config: StageConfig) -> str:
        context: Any = SimpleNamespace(config=config, inputs={})
        return sampling_digest(context, Policy(), Lengths(64, None))

    one, four = configs(1), configs(4)
    assert one[Stage.GENERATE].engine != four[Stage.GENERATE].engine
    changed = {stage for stage, config in one.items() if config.digest != four[stage].digest}
    assert changed == {Stage.REPORT}, "a report shows the specification"
    assert held_out(one[Stage.EVALUATE]) == held_out(four[Stage.EVALUATE])


def estimate(**changes: Any) -> RunEstimate:
    spec = {
        "model": {"uri": "hf://Qwen/Qwen3-8B"},
        "prompts": {"perIteration": 512, "heldOut": 64},
        "generation": {"candidates": 8, "maxTokens": 1024},
        "training": {"gpusPerNode": 8},
        "rollout": "Separate",
        **changes,
    }
    shape = known_shape("hf://Qwen/Qwen3-8B")
    assert shape is not None
    return estimate_run(
        a_run().with_spec(**spec).build().spec, builtin_objective("collective-agency"), shape, Hardware.H100
    )


def stage_of(found: RunEstimate, stage: Stage) -> StageEstimate:
    return next(entry for entry in found.stages if entry.stage is stage)


def test_eight_engines_of_a_pod_work_like_eight_pods_and_write_prompts_together_too() -> None:
    generation = {"candidates": 8, "maxTokens": 1024, "shards": 8}
    one, pods = estimate(), estimate(generation=generation)
    pod = estimate(engine={"replicas": 8})
    for stage in (Stage.GENERATE, Stage.JUDGE, Stage.EVALUATE):
        assert (stage_of(pod, stage).pods, stage_of(pod, stage).gpus) == (1, 8)
        assert (stage_of(pods, stage).pods, stage_of(pods, stage).gpus) == (8, 8)
        assert stage_of(pod, stage).work_seconds == stage_of(pods, stage).work_seconds
        assert stage_of(pod, stage).memory_gib == stage_of(one, stage).memory_gib
        assert stage_of(pod, stage).start_seconds <= stage_of(one, stage).start_seconds, "digests are checked once"
    assert stage_of(pod, Stage.PROMPTS).work_seconds < stage_of(one, Stage.PROMPTS).work_seconds
    assert not pod.problems


def test_engines_of_several_gpus_in_several_pods_multiply() -> None:
    found = estimate(generation={"shards": 2}, engine={"replicas": 2, "tensorParallel": 2})
    generate = stage_of(found, Stage.GENERATE)
    assert (generate.pods, generate.gpus) == (2, 8)
    assert generate.gpu_seconds == pytest.approx(8 * generate.seconds, rel=0.01)


def test_engines_without_gpus_hold_none() -> None:
    run = a_run().with_spec(
        engine=ENGINE, stages={"generate": {"resources": {"limits": {"nvidia.com/gpu": "0"}}}}, rollout="Separate"
    )
    assert count_devices(run.build(), Stage.GENERATE, SETTINGS) == 0
    assert gpus_of(bundles(run)[Stage.GENERATE]) == 0
