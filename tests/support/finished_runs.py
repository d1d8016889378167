"""The working folder of a run that has ended: small artifacts, made from the configurations that the planner gave."""

from collections.abc import Callable
from pathlib import Path

from dynalign_contract.config import RolloutParams, StageConfig
from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.result import ArtifactRef, Outcome, PartResult, StageResult, combine_artifacts
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.planning.observed import JobObservation
from support.builders import RunBuilder
from support.report_runs import a_work_folder
from support.simulation import Simulation, succeed


def write_finished_run(root: Path, builder: RunBuilder) -> AlignmentRun:
    """Write artifacts, configurations and run.json of the builder's run below `root`."""
    return finish_run(root, builder.build())


def finish_run(root: Path, run: AlignmentRun) -> AlignmentRun:
    """Write artifacts, configurations and run.json below `root`, as they are when this run has ended."""
    return _write_run(root, run, lambda run: False)


def stop_at_gate(root: Path, run: AlignmentRun) -> AlignmentRun:
    """Write artifacts, configurations and run.json below `root`, as they are when this run waits for an approval."""
    return _write_run(root, run, lambda run: run.status.awaited_approval is not None)


def _write_run(root: Path, run: AlignmentRun, is_over: Callable[[AlignmentRun], bool]) -> AlignmentRun:
    simulation = Simulation(run)
    workdir = Workdir(root)

    def fate(job: JobObservation) -> JobObservation:
        (text,) = (
            b.config_map["data"]["stage.json"] for b in simulation.created if b.job["metadata"]["name"] == job.name
        )
        config = StageConfig.model_validate_json(text)
        folder = root / ".jobs" / job.name
        folder.mkdir(parents=True)
        (folder / "stage.json").write_text(text)
        log = workdir.log(job.name, 0, len(job.results))
        log.parent.mkdir(exist_ok=True)
        log.write_text(f"{config.stage} has succeeded\n")
        done, written = succeed(job), write_result(root, config)
        results = tuple(
            result and result.model_copy(update={"artifact": written[shard].artifact, "parts": written[shard].parts})
            for shard, result in enumerate(done.results)
        )
        return JobObservation(**{**vars(done), "results": results})

    while not is_over(simulation.run):
        if simulation.step(fate).wake_at is None and simulation.is_over:
            break
    metadata = simulation.run.metadata.model_copy(update={"resource_version": "1"})
    ended = simulation.run.model_copy(update={"metadata": metadata})
    (root / "run.json").write_text(ended.to_json(indent=2))
    return ended


def write_result(root: Path, config: StageConfig) -> list[StageResult]:
    """Write what a stage leaves, or a rollout's stages; one result for each shard."""
    if not isinstance(config.params, RolloutParams):
        return [_result(write_artifact(root, config, shard)) for shard in range(config.shards)]
    made: dict[Stage, ArtifactRef] = {}
    parts: list[dict[Stage, PartResult]] = [{} for _ in range(config.shards)]
    for part in config.params.parts:
        own = config.of_part(part, made)
        written = [write_artifact(root, own, shard) for shard in range(own.shards)]
        is_whole = own.is_joined or own.shards == 1
        made[part.stage] = written[0] if is_whole else combine_artifacts(own.folder, written)
        for shard, artifact in enumerate(written):
            parts[shard][part.stage] = PartResult(artifact=artifact, seconds=1.0)
    return [
        _result([part.artifact for part in of_shard.values()][-1]).model_copy(update={"parts": of_shard})
        for of_shard in parts
    ]


def _result(artifact: ArtifactRef) -> StageResult:
    return StageResult(outcome=Outcome.SUCCEEDED, artifact=artifact)


def write_artifact(root: Path, config: StageConfig, shard: int = 0) -> ArtifactRef:
    """A file that says which stage wrote it, and its manifest."""
    shard = shard if config.shards > 1 and not config.is_joined else 0
    path = config.folder if config.is_joined else config.shard(shard)
    (root / path).mkdir(parents=True, exist_ok=True)
    (root / path / "contents.txt").write_text(f"{config.stage} of {config.iteration}, {shard}")
    if config.iteration is not None:
        a_work_folder().write_rows_of(config.stage, config.iteration, root / path)
    return seal(root, path, config)


def seal(root: Path, path: str, config: StageConfig) -> ArtifactRef:
    """Write the manifest of what lies in a folder now."""
    names = [p.name for p in sorted((root / path).iterdir()) if p.name != MANIFEST]
    manifest = Manifest(
        stage=config.stage,
        iteration=config.iteration,
        config_digest=config.digest,
        files=tuple(describe_file(root / path, name) for name in names),
    )
    write_manifest(root / path, manifest)
    return ArtifactRef(path=path, digest=manifest.digest, bytes=sum(file.bytes for file in manifest.files))
