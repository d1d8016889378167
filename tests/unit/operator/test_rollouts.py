"""Prompts, generate and judge in one Job: when that is chosen, what the Job is given, and what becomes of its results."""

import base64
import json
import zlib
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from dynalign_contract.accelerators import Hardware
from dynalign_contract.config import RolloutParams, TrainParams
from dynalign_contract.goodput import DeviceUnit
from dynalign_contract.metrics import STAGE_METRICS
from dynalign_contract.result import MAX_RESULT_BYTES, ArtifactRef, Outcome, PartResult, StageResult
from dynalign_contract.settings import OnRegression
from dynalign_contract.stages import ITERATION_STAGES, PART_STAGES, ROLLOUT_STAGES, Stage, iteration_of_part
from dynalign_operator.api.rollouts import choose_rollout, run_overrides, without_fused_rollout
from dynalign_operator.api.status import ConditionType, Phase, StagePhase
from dynalign_operator.cli.validate import summarise
from dynalign_operator.clusters.run_source import LogSelection
from dynalign_operator.clusters.stage_metrics import parse_metrics
from dynalign_operator.estimate.run_estimate import estimate_run
from dynalign_operator.estimate.shapes import known_shape
from dynalign_operator.planning import reasons
from dynalign_operator.planning.observed import JobObservation, Step
from dynalign_operator.planning.planner import retry
from dynalign_operator.planning.run_facts import facts_of
from dynalign_operator.planning.sequence import finished_iteration
from dynalign_operator.planning.shown_stages import shown_stages
from dynalign_operator.planning.status import RunPosition, progress_text
from dynalign_operator.runfile.run_file import RunFile
from dynalign_trainer.runtime.session import Session
from dynalign_trainer.runtime.telemetry import Share
from support.builders import RunBuilder, a_job, a_run
from support.planning import condition, config_of
from support.simulation import Simulation, config_of_bundle, succeed

ENDPOINT = {"model": "Endpoint", "endpoint": {"url": "http://far/v1", "model": "big"}}


def fused(**spec: Any) -> RunBuilder:
    return a_run().with_spec(rollout="Fused", **spec)


@pytest.mark.parametrize(
    ("spec", "obstacle"),
    [
        ({}, None),
        ({"stages": {"rollout": {"runtimeClassName": "nvidia"}}}, None),
        ({"stages": {"judge": {"runtimeClassName": "nvidia"}}}, "stages.judge"),
        ({"prompts": {"agents": dict.fromkeys(("author", "critic"), ENDPOINT)}}, "no agent"),
        (
            {"judging": {"judges": [{"name": "far", "judge": "Endpoint", "endpoint": ENDPOINT["endpoint"]}]}},
            "no judge",
        ),
    ],
)
def test_auto_takes_fused_unless_something_speaks_against_it(spec: dict[str, Any], obstacle: str | None) -> None:
    run = a_run().with_spec(rollout="Auto", **spec).build()
    choice = choose_rollout(run.spec)
    assert choice.is_fused is (obstacle is None)
    assert (obstacle or "own engine") in choice.reason
    said = summarise(__file__, RunFile(run=run, config_maps={}, lines={}))  # type: ignore[arg-type]
    assert f"rollout: {'Separate' if obstacle else 'Fused'}: " in said
    created = {bundle.step.stage for bundle in Simulation(run).finish().created}
    assert (Stage.ROLLOUT in created) is (obstacle is None)
    assert (Stage.JUDGE in created) is (obstacle is not None)


def test_a_part_has_the_configuration_of_a_job_of_its_own() -> None:
    """The digests decide whether one kind of Job goes on where the other has stopped."""
    separate = Simulation(a_run().with_iterations(2).build()).finish()
    together = Simulation(fused().with_iterations(2).build()).finish()
    for iteration in (0, 1):
        config = config_of(together, f"rollout of iteration {iteration}")
        assert isinstance(config.params, RolloutParams)
        made: dict[Stage, ArtifactRef] = {}
        for part in config.params.parts:
            alone = config_of(separate, f"{part.stage} of iteration {iteration_of_part(part.stage, iteration)}")
            source = {Stage.GENERATE: ("prompts", Stage.PROMPTS), Stage.JUDGE: ("rollouts", Stage.GENERATE)}
            if part.stage in source:
                name, stage = source[part.stage]
                made[stage] = alone.inputs[name]
            own = config.of_part(part, made)
            assert set(own.inputs) == set(alone.inputs)
            assert own.params.model_dump(exclude={"policy", "judge"}) == alone.params.model_dump(
                exclude={"policy", "judge"}
            )
            if iteration == 0:
                assert own.digest == alone.digest


def test_prompts_that_are_written_once_are_no_part_of_later_rollouts() -> None:
    run = Simulation(fused(prompts={"refresh": "Once"}).with_iterations(2).build()).finish()
    stages = [
        [part.stage for part in config.params.parts]
        for config in (config_of(run, f"rollout of iteration {i}") for i in (0, 1))
        if isinstance(config.params, RolloutParams)
    ]
    assert stages == [list(ROLLOUT_STAGES), [Stage.EVALUATE, Stage.GENERATE, Stage.JUDGE]]


def test_each_rollout_begins_with_the_evaluation_of_the_iteration_before() -> None:
    run = Simulation(fused().with_iterations(3).build()).finish()
    assert [step for step, _ in run.steps_created()] == [
        *("fetch", "rollout of iteration 0", "train of iteration 0"),
        *("rollout of iteration 1", "train of iteration 1"),
        *("rollout of iteration 2", "train of iteration 2", "evaluate of iteration 2", "export"),
    ]
    params = [config_of(run, f"rollout of iteration {i}").params for i in range(3)]
    assert [[part.stage for part in found.parts] for found in params if isinstance(found, RolloutParams)] == [
        list(ROLLOUT_STAGES),
        list(PART_STAGES),
        list(PART_STAGES),
    ]
    assert [entry.win_rate is not None for entry in run.run.status.iterations] == [True] * 3


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("action", list(OnRegression))
@pytest.mark.parametrize("regressed", [{0}, {1}, {0, 1}, {1, 2}, {3}])
def test_what_follows_a_regression_is_the_same_in_either_kind_of_job(
    regressed: set[int], action: OnRegression, every: int
) -> None:
    """The evaluation that ends a rollout early, one that does not, and one with a Job of its own."""

    def fate(job: JobObservation) -> JobObservation:
        evaluated = None if job.iteration is None else job.iteration - (job.stage is Stage.ROLLOUT)
        return succeed(job, regressed=1.0) if evaluated in regressed else succeed(job)

    evaluation = {"onRegression": action.value, "every": every}
    separate, together = (
        Simulation(a_run().with_spec(rollout=rollout, evaluation=evaluation).with_iterations(4).build()).finish(fate)
        for rollout in ("Separate", "Fused")
    )
    made = [
        {
            entry.index: (entry.policy is not None, entry.win_rate, entry.regressed)
            for entry in simulation.run.status.iterations
            if entry.prompts is not None
        }
        for simulation in (separate, together)
    ]
    assert made[1] == made[0]
    exported = [config_of(simulation, "export").params for simulation in (separate, together)]
    assert exported[1].policy.version == exported[0].policy.version  # type: ignore[union-attr]
    assert len(exported[1].iterations) == len(exported[0].iterations)  # type: ignore[union-attr]
    for index in range(4):
        starts = [_start_of(simulation, index) for simulation in (separate, together)]
        assert starts[1] == starts[0], f"iteration {index} starts from the same policy"


def _start_of(simulation: Simulation, iteration: int) -> str | None:
    """Version of the policy from which an iteration was trained; None if it was not."""
    configs = [config_of_bundle(b) for b in simulation.created if b.step == Step(Stage.TRAIN, iteration)]
    return next((found.params.policy.version for found in configs if isinstance(found.params, TrainParams)), None)


def test_a_rollout_that_an_evaluation_has_ended_goes_on_when_the_run_may() -> None:
    """Its time is counted, its iteration has not begun, and a changed `onRegression` takes it up."""
    simulation = Simulation(fused(evaluation={"onRegression": "Stop"}).with_iterations(2).build())
    simulation.finish(lambda job: succeed(job, regressed=1.0) if job.iteration == 1 else succeed(job))
    status = simulation.run.status
    assert simulation.steps_created()[-2:] == [("rollout of iteration 1", 1), ("export", 1)]
    assert (status.phase, status.progress) == (Phase.SUCCEEDED, "1/1")
    assert status.iterations[0].regressed
    simulation.change_spec(
        evaluation=simulation.run.spec.evaluation.model_copy(update={"on_regression": OnRegression.CONTINUE})
    )
    simulation.finish()
    assert ("rollout of iteration 1", 2) in simulation.steps_created()
    assert [part.stage for part in _last_rollout(simulation).parts] == list(ROLLOUT_STAGES)
    assert simulation.run.status.iterations[1].policy is not None


def test_the_report_waits_for_an_evaluation_within_the_next_rollout() -> None:
    simulation = Simulation(fused().with_iterations(2).build()).until(Stage.ROLLOUT, 1)
    assert finished_iteration(simulation.run.spec, simulation.run.status) is None
    simulation.step(lambda job: job)
    assert finished_iteration(simulation.run.spec, simulation.run.status) is None
    simulation.until(Stage.TRAIN, 1)
    assert finished_iteration(simulation.run.spec, simulation.run.status) == 0


def test_an_evaluation_that_pods_of_its_own_are_described_for_has_a_job_of_its_own() -> None:
    own = {"evaluate": {"runtimeClassName": "nvidia"}}
    assert "evaluate of iteration 0" in dict(
        Simulation(fused(stages=own).with_iterations(2).build()).finish().steps_created()
    )
    alike = own | {"rollout": own["evaluate"]}
    found = Simulation(fused(stages=alike).with_iterations(2).build()).finish()
    assert "evaluate of iteration 0" not in dict(found.steps_created())


def test_the_log_of_an_evaluation_is_in_that_of_the_next_rollout() -> None:
    assert LogSelection(Stage.EVALUATE, 0).matches(Step(Stage.ROLLOUT, 1), 1)
    assert LogSelection(Stage.EVALUATE, 1).matches(Step(Stage.EVALUATE, 1), 1)
    assert not LogSelection(Stage.EVALUATE, 1).matches(Step(Stage.ROLLOUT, 1), 1)
    assert not LogSelection(Stage.JUDGE, 0).matches(Step(Stage.ROLLOUT, 1), 1)
    assert not LogSelection(Stage.EVALUATE).matches(Step(Stage.ROLLOUT, 0), 1)


def _last_rollout(simulation: Simulation) -> RolloutParams:
    params = [config_of_bundle(bundle).params for bundle in simulation.created if bundle.step.stage is Stage.ROLLOUT]
    assert isinstance(params[-1], RolloutParams)
    return params[-1]


def test_a_run_that_becomes_fused_does_the_rest_of_an_iteration_in_one_job() -> None:
    simulation = Simulation(a_run().with_iterations(1).build()).until(Stage.GENERATE, 0)
    simulation.change_spec(rollout=fused().build().spec.rollout)
    simulation.finish()
    assert [step for step, _ in simulation.steps_created()][1:4] == [
        "prompts of iteration 0",
        "generate of iteration 0",
        "rollout of iteration 0",
    ]
    config = config_of(simulation, "rollout of iteration 0")
    assert isinstance(config.params, RolloutParams)
    assert [part.stage for part in config.params.parts] == [Stage.GENERATE, Stage.JUDGE]


def test_progress_names_the_part_and_counts_it_as_one_of_three() -> None:
    session = Session(root=None, policies=(), share=Share(1, 3))  # type: ignore[arg-type]
    telemetry = session.telemetry(Stage.GENERATE)
    telemetry.progress(5, 10)
    reading = parse_metrics(telemetry.text())
    assert reading.progress.part is Stage.GENERATE
    assert reading.progress.fraction == pytest.approx(0.5)
    run = fused().build()
    job = a_job(Stage.ROLLOUT, 0).running().build()
    position = RunPosition(Step(Stage.ROLLOUT, 0), job=type(job)(**{**vars(job), "progress": reading.progress}))
    assert progress_text(run.spec, run.status, position) == "1/2 rollout: generate 50%"


@pytest.mark.parametrize("stage", [Stage.ROLLOUT, *ROLLOUT_STAGES])
def test_the_log_of_a_rollout_is_that_of_its_stages(stage: Stage) -> None:
    assert LogSelection(stage).matches(Step(Stage.ROLLOUT, 0), 1)
    assert not LogSelection(Stage.TRAIN).matches(Step(Stage.ROLLOUT, 0), 1)
    assert not LogSelection(Stage.ROLLOUT).matches(Step(Stage.JUDGE, 0), 1)


def test_a_result_that_is_too_long_loses_families_first_and_never_an_artifact() -> None:
    artifact = ArtifactRef(path="iterations/000/judgements", digest="sha256:" + "a" * 64)
    draw = Random(0)  # what is random cannot be compressed
    names = [*(f"figure_{i}" for i in range(20)), *(f"family_{k}/m{i}" for k in range(9) for i in range(30))]
    parts = {
        stage: PartResult(artifact=artifact, metrics={name: draw.random() for name in names})
        for stage in ROLLOUT_STAGES
    }
    result = StageResult(outcome=Outcome.SUCCEEDED, artifact=artifact, parts=parts)
    found = StageResult.decode(result.encode())
    assert len(result.encode()) <= MAX_RESULT_BYTES
    assert list(found.parts) == list(ROLLOUT_STAGES)
    for part in found.parts.values():
        assert part.artifact == artifact
        assert set(part.metrics) >= {f"figure_{i}" for i in range(20)}
    assert "judge: family_8" in found.omitted or "others" in found.omitted
    assert found.parts[Stage.PROMPTS].whole().metrics[0].name == "figure_0"


def test_every_number_of_a_rollout_fits_into_its_result() -> None:
    """All four parts, every number that they can measure, members of families, and a warning."""
    draw = Random(0)
    digest = "sha256:" + draw.randbytes(32).hex()
    artifact = ArtifactRef(path="iterations/000/judgements", digest=digest, bytes=10**9, rows=10**6)
    parts = {
        stage: PartResult(
            artifact=artifact,
            metrics={name: draw.uniform(-1, 1) for name in _names_of(stage)},
            seconds=12345.678,
        )
        for stage in PART_STAGES
    }
    warnings = ("w" * 200,)
    result = StageResult(outcome=Outcome.SUCCEEDED, artifact=artifact, parts=parts, warnings=warnings)
    found = StageResult.decode(result.encode())
    assert (found.omitted, found.warnings) == ((), warnings)
    for stage, part in parts.items():
        assert found.parts[stage].artifact == artifact
        assert found.parts[stage].metrics == pytest.approx(part.metrics, rel=1e-5)


def _names_of(stage: Stage) -> list[str]:
    families = STAGE_METRICS[stage].families().values()
    return [*STAGE_METRICS[stage].singles(), *(family.of(f"m{i}").name for family in families for i in range(4))]


@pytest.mark.parametrize("packed", ["?", "aGVsbG8=", base64.b64encode(zlib.compress(b"[" * (1 << 20))).decode()])
def test_a_message_that_is_no_packed_result_is_refused(packed: str) -> None:
    with pytest.raises(ValidationError):
        StageResult.decode(json.dumps({"outcome": "Succeeded", "packed": packed}))


@pytest.mark.parametrize("refresh", ["EveryIteration", "Once"])
def test_the_estimate_counts_one_start_for_all_parts_and_all_pods_for_each(refresh: str) -> None:
    shape = known_shape("hf://Qwen/Qwen3-8B")
    assert shape is not None
    spec: dict[str, Any] = {"model": {"uri": "hf://Qwen/Qwen3-8B"}, "generation": {"shards": 4}}
    spec["prompts"] = {"refresh": refresh}
    separate, together = (
        estimate_run(a_run().with_spec(**spec, rollout=rollout).build().spec, None, shape, Hardware.H100)
        for rollout in ("Separate", "Fused")
    )
    before, after = ({entry.stage: entry for entry in found.stages} for found in (separate, together))
    starts = [after[stage].start_seconds for stage in ROLLOUT_STAGES]
    first = Stage.GENERATE if refresh == "Once" else Stage.PROMPTS
    assert [start > 0 for start in starts] == [stage is first for stage in ROLLOUT_STAGES]
    shared = before[Stage.PROMPTS].work_seconds - after[Stage.PROMPTS].work_seconds
    assert shared > 0, "all pods of a rollout write its prompts"
    others = [stage for stage in ROLLOUT_STAGES if stage is not Stage.PROMPTS]
    assert [after[stage].work_seconds for stage in others] == [before[stage].work_seconds for stage in others]
    assert {after[stage].gpus for stage in ROLLOUT_STAGES} == {4}
    saved = sum(before[stage].start_seconds for stage in PART_STAGES if stage is not first)
    saved += shared
    assert together.iteration_seconds == pytest.approx(separate.iteration_seconds - saved, abs=0.2)
    assert after[Stage.TRAIN] == before[Stage.TRAIN]


def test_a_budget_holds_a_rollout_for_what_its_stages_are_estimated_to_take() -> None:
    run = fused(model={"uri": "hf://Qwen/Qwen3-8B"}, policy={"budget": {"gpuHours": 0.01}}).build()
    held = Simulation(run).until(Stage.ROLLOUT, 0)
    assert [step for step, _ in held.steps_created()] == ["fetch"]
    shape = known_shape("hf://Qwen/Qwen3-8B")
    assert shape is not None
    found = estimate_run(run.spec, None, shape, Hardware.H100)
    hours = sum(entry.gpu_seconds for entry in found.stages if entry.stage in ROLLOUT_STAGES) / 3600
    assert f"estimated to take {hours:.2g}" in condition(held.run.status, ConditionType.STALLED).message


def test_what_people_see_counts_the_time_of_a_rollout_once_and_has_every_stage() -> None:
    """Facts of the report, and the stages of the live page and of the progress table."""
    run = fused().with_iterations(1).build()
    running = Simulation(run).until(Stage.ROLLOUT, 0)
    running.step(lambda job: job)
    running.plan()
    (iteration,) = running.run.status.iterations
    assert {entry.stage: entry.phase for entry in shown_stages(running.run, iteration)} == dict.fromkeys(
        ROLLOUT_STAGES, StagePhase.RUNNING
    )
    (iteration,) = running.finish().run.status.iterations
    assert [entry.stage for entry in shown_stages(running.run, iteration)] == list(ITERATION_STAGES)
    facts = facts_of(running.run)
    assert [entry.stage for entry in facts.stages] == [Stage.FETCH, *ITERATION_STAGES, Stage.EXPORT]
    spent = {entry.stage: entry.seconds for entry in facts.stages}
    assert [spent[stage] for stage in ROLLOUT_STAGES] == [10.0, 10.0, 10.0], "as the parts say"


def test_every_job_of_a_fused_run_gets_the_pods_of_its_rollout() -> None:
    """Those that repair one of its stages too; on a cluster without GPUs none may ask for one."""
    no_gpu = {"resources": {"limits": {"nvidia.com/gpu": "0"}}}
    own = {"rollout": {**no_gpu, "nodeSelector": {"pool": "cpu"}}, "train": no_gpu, "evaluate": no_gpu}
    run = fused(stages=own).with_iterations(1).build()
    simulation = Simulation(run).finish()
    assert simulation.run.status.goodput is not None
    assert simulation.run.status.goodput.unit is DeviceUnit.POD
    damaged = simulation.run.status.evolve(phase=Phase.FAILED, export=None)
    corrupt = tuple(
        entry.model_copy(update={"status": "True", "reason": reasons.CORRUPT_ARTIFACT})
        if entry.type == "Stalled"
        else entry
        for entry in damaged.conditions
    )
    simulation.run = retry(simulation.run.with_status(damaged.evolve(conditions=corrupt)))
    repaired = Simulation(simulation.run).until(Stage.JUDGE, 0)
    for bundle in repaired.created:
        if bundle.step.stage in ROLLOUT_STAGES:
            pod = bundle.job["spec"]["template"]["spec"]
            assert pod["nodeSelector"] == {"pool": "cpu"}
            assert "nvidia.com/gpu" not in pod["containers"][0]["resources"].get("limits", {})
    assert {bundle.step.stage for bundle in repaired.created} >= set(ROLLOUT_STAGES)


def test_on_one_machine_shards_have_separate_jobs_with_the_pods_of_the_rollout() -> None:
    run = fused(generation={"shards": 2}, stages={"rollout": {"env": [{"name": "A", "value": "1"}]}}).build()
    alone = without_fused_rollout(run)
    assert choose_rollout(alone.spec).is_fused is False
    for stage in ROLLOUT_STAGES:
        assert run_overrides(alone.spec, stage) == run.spec.stages.rollout
    assert without_fused_rollout(alone) is alone
