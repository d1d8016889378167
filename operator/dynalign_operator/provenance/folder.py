"""Reads the lineage of a run from its folder."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from dynalign_contract.config import StageConfig
from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.manifest import artifact_folders, read_manifest, verify_artifact
from dynalign_contract.objective import BUILTIN, builtin_objective
from dynalign_contract.result import ArtifactRef
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.errors import MissingArtifactError
from dynalign_operator.planning.observed import Step
from dynalign_operator.planning.stage_configs import build_stage_config
from dynalign_operator.provenance.lineage import Lineage, Link, recorded_artifacts


def read_lineage(run: AlignmentRun, root: Path) -> Lineage:
    """The chain of the run whose folder is `root`. Raises CorruptArtifactError for a manifest that cannot be read."""
    configs = {config.digest: config for config in _stored_configs(root)}
    links = []
    for step, artifact in recorded_artifacts(run.status):
        manifests = tuple(m for folder in artifact_folders(root, artifact) if (m := read_manifest(folder)) is not None)
        whole = manifests if len(manifests) == artifact.shards else ()
        config = configs.get(whole[0].config_digest) if whole else None
        links.append(
            Link(step, artifact, whole, config or _rebuilt(run, step, whole[0].config_digest if whole else ""))
        )
    return Lineage(tuple(links))


def verify_bytes(root: Path, artifact: ArtifactRef) -> str | None:
    """What is wrong with the files of an artifact, as a sentence; None where every byte is as it was written."""
    try:
        verify_artifact(root, artifact)
    except CorruptArtifactError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    return None


def _stored_configs(root: Path) -> Iterator[StageConfig]:
    """Configurations of Jobs that `dynalign run` has kept."""
    for path in sorted((root / ".jobs").glob("*/stage.json")):
        try:
            yield StageConfig.model_validate_json(path.read_bytes())
        except (ValidationError, OSError):  # of another version: the run is read without it
            continue


def _rebuilt(run: AlignmentRun, step: Step, digest: str) -> StageConfig | None:
    """The configuration as the planner builds it from specification and status, where it has this digest."""
    if run.spec.objective.config_map_ref is not None:
        return None
    objective = builtin_objective(run.spec.objective.builtin or BUILTIN[0])
    try:
        config = build_stage_config(run, run.status, step, 1, objective)
    except MissingArtifactError:
        return None
    return config if config.digest == digest else None
