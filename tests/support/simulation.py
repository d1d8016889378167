"""A cluster that exists in values only: it runs the planner against its own output, and fate decides how Jobs end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from dynalign_contract.config import RolloutParams, StageConfig
from dynalign_contract.layout import stage_folder
from dynalign_contract.result import PartResult, PublishedPlace, StageResult
from dynalign_contract.stages import JOINED_STAGES, SIDE_STAGES, Stage, iteration_of_part
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.manifests.labels import read_job_labels
from dynalign_operator.planning.observed import DISRUPTED, JobObservation, JobPhase, Observed, Step
from dynalign_operator.planning.plan import Event, JobBundle, Plan
from dynalign_operator.planning.planner import plan
from support.builders import T0, a_result, an_artifact

SETTINGS = BuildSettings(trainer_image="trainer:test", sends_notifications=True)

Fate = Callable[[JobObservation], JobObservation]
"""What becomes of an active Job: the same value leaves it running."""


def metrics_of(step: Step) -> Mapping[str, float | None]:
    """Numbers such as the real stages report."""
    if step.stage is Stage.JUDGE:
        return {"reward": 0.5 + 0.01 * (step.iteration or 0)}
    if step.stage is Stage.EVALUATE:
        rate = 0.5 + 0.01 * (step.iteration or 0)
        return {"win_rate": rate, "win_rate_low": rate - 0.1, "win_rate_high": rate + 0.1, "regressed": 0.0}
    return {}


def succeed(job: JobObservation, **metrics: float | None) -> JobObservation:
    """The Job with a success for each of its shards."""
    numbers: dict[str, Any] = {**metrics_of(job.step), **metrics}
    paths = [f"{job.step}-{i}" for i in range(len(job.results))]
    if job.stage in JOINED_STAGES:
        paths[-1] = stage_folder(job.stage, job.iteration)
    results: list[StageResult | None] = [a_result(path=path, **numbers) for path in paths]
    return replace(job, phase=JobPhase.SUCCEEDED, results=tuple(results), exit_code=0)


def config_of_bundle(bundle: JobBundle) -> StageConfig:
    """The configuration that a Job mounts."""
    return StageConfig.model_validate_json(bundle.config_map["data"]["stage.json"])


def publish(job: JobObservation, *uris: str) -> JobObservation:
    """The Job with a success; an export's has published the model to these addresses."""
    done = succeed(job)
    if job.step.stage is not Stage.EXPORT:
        return done
    places = tuple(PublishedPlace(uri=uri) for uri in uris)
    return replace(done, results=tuple(r and r.model_copy(update={"published": places}) for r in done.results))


def fail(job: JobObservation, code: int) -> JobObservation:
    return replace(job, phase=JobPhase.FAILED, exit_code=code)


def disrupt(job: JobObservation) -> JobObservation:
    return replace(job, phase=JobPhase.FAILED, reason=DISRUPTED)


def _is_share(result: StageResult) -> bool:
    """Whether fate left this pod's share of an evaluation unjoined."""
    return result.artifact is not None and result.artifact.path.startswith("share-")


@dataclass
class Simulation:
    """Time moves by one minute a step, or to the planner's wake-up time when nothing runs."""

    run: AlignmentRun
    jobs: dict[str, JobObservation] = field(default_factory=dict)
    now: datetime = T0
    created: list[JobBundle] = field(default_factory=list)
    """Jobs of the sequence."""
    reports: list[JobBundle] = field(default_factory=list)
    """Jobs of the report, which live beside them."""
    report_fate: Fate = succeed
    """What becomes of the Jobs of the report, whatever becomes of the others."""
    lost: set[str] = field(default_factory=set)
    """Jobs that somebody has removed behind the planner's back."""
    events: list[Event] = field(default_factory=list)
    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    settings: BuildSettings = SETTINGS

    def observed(self) -> Observed:
        return Observed(self.run, tuple(self.jobs.values()), self.config_maps)

    def plan(self, *, status_is_lost: bool = False) -> Plan:
        """Plan once and apply; a lost status write leaves the objects ahead of it, and publishes no events."""
        decided = plan(self.observed(), self.now, self.settings)
        for name in decided.delete:
            job = self.jobs[name]
            if job.phase is JobPhase.ACTIVE:
                self.jobs[name] = replace(job, deleting=True)
            else:
                del self.jobs[name]
        for bundle in decided.create:
            self._create(bundle)
        if status_is_lost:
            self.lost |= set(decided.delete)
        else:
            self.run = self.run.model_copy(update={"status": decided.status})
            self.events += decided.events
        return decided

    def step(self, fate: Fate, *, status_is_lost: bool = False) -> Plan:
        """Plan, then let time and fate do their work."""
        decided = self.plan(status_is_lost=status_is_lost)
        self._pass_time(decided, fate)
        return decided

    def until(self, stage: Stage, iteration: int | None = None, fate: Fate | None = None) -> Simulation:
        """Let every stage succeed, or fare as `fate` says, until a step's Job has been created. Fails when the run never gets there."""
        for _ in range(500):
            decided = self.plan()
            if (self.run.status.stage, self.run.status.iteration) == (stage, iteration):
                return self
            self._pass_time(decided, fate or succeed)
        raise AssertionError(f"{stage} of iteration {iteration} was never reached")

    def _pass_time(self, decided: Plan, fate: Fate) -> None:
        self.now = max(self.now + timedelta(minutes=1), self._next_wake(decided))
        for name, job in list(self.jobs.items()):
            if job.deleting:
                del self.jobs[name]
            elif job.phase is JobPhase.ACTIVE:
                running = replace(job, start_time=job.start_time or self.now, last_progress_time=self.now)
                ended = (self.report_fate if job.stage in SIDE_STAGES else fate)(running)
                over = ended.phase is not JobPhase.ACTIVE
                self.jobs[name] = replace(self._with_parts(ended), completion_time=self.now if over else None)

    def _with_parts(self, job: JobObservation) -> JobObservation:
        """The Job; the results of a rollout name what each of its stages has left, as fate or its configuration says.

        Numbers that fate gave the rollout are those of its evaluation: with `regressed` nothing may follow that.
        """
        if job.stage is not Stage.ROLLOUT or job.phase is not JobPhase.SUCCEEDED:
            return job
        params = next(config_of_bundle(bundle).params for bundle in self.created if bundle.name == job.name)
        assert isinstance(params, RolloutParams)
        results = []
        for index, result in enumerate(job.results):
            assert result is not None
            given = {metric.name: metric.value for metric in result.metrics}
            ends = params.ends_on_regression and given.get("regressed") == 1
            parts = {}
            for part in params.parts[: 1 if ends else None]:
                if result.parts and part.stage not in result.parts:
                    continue
                iteration = iteration_of_part(part.stage, job.iteration or 0)
                path, is_joined = f"{part.stage}-{iteration}-{index}", index == len(job.results) - 1
                if part.stage in JOINED_STAGES and is_joined and not _is_share(result):
                    path = stage_folder(part.stage, iteration)
                made = result.parts.get(part.stage)
                parts[part.stage] = PartResult(
                    artifact=an_artifact(path) if made is None else made.artifact,
                    metrics={
                        **metrics_of(Step(part.stage, iteration)),
                        **(given if part.stage is Stage.EVALUATE else {}),
                    },
                    seconds=10.0,
                )
            results.append(result.model_copy(update={"parts": parts}))
        return replace(job, results=tuple(results))

    def finish(self, fate: Fate = succeed, *, steps: int = 500) -> Simulation:
        """Step until nothing more is to be done. Fails when that takes too many steps."""
        for _ in range(steps):
            decided = self.step(fate)
            if decided.wake_at is None and self.is_over:
                return self
        raise AssertionError(f"no end after {steps} steps: {self.run.status.phase} {self.run.status.progress}")

    @property
    def is_over(self) -> bool:
        """Whether no Job runs."""
        return not self._alive()

    def lose(self, name: str) -> None:
        """Somebody removes a Job."""
        del self.jobs[name]
        self.lost.add(name)

    def change_spec(self, **fields: object) -> None:
        """The user edits the run; the API server counts the generation up."""
        spec = self.run.spec.model_copy(update=fields)
        metadata = self.run.metadata.model_copy(update={"generation": self.run.metadata.generation + 1})
        self.run = self.run.model_copy(update={"spec": spec, "metadata": metadata})

    @property
    def all_created(self) -> list[JobBundle]:
        """The Jobs of the sequence, then those of the report."""
        return [*self.created, *self.reports]

    def steps_created(self) -> list[tuple[str, int]]:
        """`("train of iteration 1", 2)` for every Job of the sequence, in order."""
        return [(str(bundle.step), bundle.attempt) for bundle in self.created]

    def _next_wake(self, decided: Plan) -> datetime:
        return self.now if self._alive() or decided.wake_at is None else decided.wake_at

    def _alive(self) -> bool:
        return any(job.phase is JobPhase.ACTIVE for job in self.jobs.values())

    def _create(self, bundle: JobBundle) -> None:
        assert bundle.name not in self.jobs, f"{bundle.name} exists already"
        is_side = bundle.step.stage in SIDE_STAGES
        alive = [job.name for job in self.jobs.values() if job.phase is JobPhase.ACTIVE]
        rivals = [name for name in alive if (self.jobs[name].stage in SIDE_STAGES) == is_side]
        assert not rivals, f"{bundle.name} was created while {rivals} lives"
        created = self.reports if is_side else self.created
        earlier = [old for old in created if old.name == bundle.name]
        assert not earlier or bundle.name in self.lost, f"{bundle.name} was created before and nobody lost it"
        self.lost.discard(bundle.name)
        created.append(bundle)
        labels = read_job_labels(bundle.job["metadata"]["labels"])
        assert labels is not None
        self.jobs[bundle.name] = JobObservation(
            name=bundle.name,
            stage=labels.stage,
            iteration=labels.iteration,
            attempt=labels.attempt,
            creation_time=self.now,
            results=(None,) * bundle.job["spec"]["completions"],
        )
