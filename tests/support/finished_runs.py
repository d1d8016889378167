"""The working folder of a run that has ended: small artifacts, made from the configurations that the planner gave."""

from pathlib import Path

from dynalign_contract.config import StageConfig
from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.result import ArtifactRef
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.observed import JobObservation
from support.builders import RunBuilder
from support.simulation import Simulation, succeed


def write_finished_run(root: Path, builder: RunBuilder) -> AlignmentRun:
    """Write artifacts, configurations and run.json below `root`."""
    simulation = Simulation(builder.build())

    def fate(job: JobObservation) -> JobObservation:
        (text,) = (
            b.config_map["data"]["stage.json"] for b in simulation.created if b.job["metadata"]["name"] == job.name
        )
        config = StageConfig.model_validate_json(text)
        folder = root / ".jobs" / job.name
        folder.mkdir(parents=True)
        (folder / "stage.json").write_text(text)
        done = succeed(job)
        results = tuple(
            result and result.model_copy(update={"artifact": write_artifact(root, config, shard)})
            for shard, result in enumerate(done.results)
        )
        return JobObservation(**{**vars(done), "results": results})

    run = simulation.finish(fate).run
    (root / "run.json").write_text(run.to_json(indent=2))
    return run


def write_artifact(root: Path, config: StageConfig, shard: int = 0) -> ArtifactRef:
    """A file that says which stage wrote it, and its manifest."""
    path = config.shard(shard if config.shards > 1 else 0)
    (root / path).mkdir(parents=True, exist_ok=True)
    (root / path / "contents.txt").write_text(f"{config.stage} of {config.iteration}, {shard}")
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
