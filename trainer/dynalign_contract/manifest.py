"""Manifest: what an artifact holds. It is written last, so its existence means that the artifact is complete."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from dynalign_contract.base import Model
from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import sha256_of, write_bytes
from dynalign_contract.layout import MANIFEST, shard_folder
from dynalign_contract.result import ArtifactRef, Metric, combine_digests
from dynalign_contract.stages import Stage

SCHEMA_VERSION = 1


class ArtifactFile(Model):
    """One file of an artifact."""

    name: str
    """Path relative to the artifact's folder."""
    bytes: int
    sha256: str
    rows: int = 0


class Manifest(Model):
    """Everything that a reader needs to trust an artifact."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    stage: Stage
    iteration: int | None = None
    config_digest: str
    """Digest of the StageConfig that produced it (`StageConfig.digest`)."""
    files: tuple[ArtifactFile, ...]
    metrics: tuple[Metric, ...] = ()
    producers: dict[str, str] = Field(default_factory=dict)
    """Library versions."""
    seconds: float = 0.0

    @property
    def digest(self) -> str:
        """Digest of the contents only: the same files give the same digest, whoever wrote them and whenever."""
        rows = [[f.name, f.bytes, f.sha256] for f in sorted(self.files, key=lambda f: f.name)]
        return "sha256:" + hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def describe_file(folder: Path, name: str, rows: int = 0) -> ArtifactFile:
    """Measure one file for the manifest (reads it whole)."""
    path = folder / name
    return ArtifactFile(name=name, bytes=path.stat().st_size, sha256=sha256_of(path), rows=rows)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest atomically. Call it last."""
    write_bytes(folder / MANIFEST, manifest.to_json(indent=2).encode())


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, None where there is none.

    Raises CorruptArtifactError when there is one that cannot be read.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CorruptArtifactError(
            f"{path} is not a manifest that this version of dynalign can read ({error.errors()[0]['msg']}). "
            f"Remove the folder {folder} to have the stage run again, or restore it from a backup."
        ) from error


def _verify_files(folder: Path, files: Iterable[ArtifactFile]) -> None:
    for file in files:
        path = folder / file.name
        if not path.is_file():
            raise CorruptArtifactError(
                f"{path} is named in {folder / MANIFEST} but does not exist. "
                f"Restore it, or remove the folder {folder} to have the stage run again."
            )
        if path.stat().st_size != file.bytes or sha256_of(path) != file.sha256:
            raise CorruptArtifactError(
                f"{path} does not have the contents that {folder / MANIFEST} recorded: it was changed or damaged after "
                f"it was written. Restore it, or remove the folder {folder} to have the stage run again."
            )


def artifact_folders(root: Path, artifact: ArtifactRef) -> tuple[Path, ...]:
    """The folders of an artifact, one a shard, unverified."""
    return tuple(root / shard_folder(artifact.path, i, artifact.shards) for i in range(artifact.shards))


def verify_artifact(root: Path, artifact: ArtifactRef) -> tuple[Path, ...]:
    """Check an artifact, every byte of it, and return its folders (one a shard).

    Raises CorruptArtifactError naming the file and the remedy.
    """
    folders = artifact_folders(root, artifact)
    digests = []
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest is None:
            raise CorruptArtifactError(
                f"{folder} has no {MANIFEST}: it is missing or half-written. "
                "Remove the folder to have its stage run again."
            )
        _verify_files(folder, manifest.files)
        digests.append(manifest.digest)
    if combine_digests(digests) != artifact.digest:
        raise CorruptArtifactError(
            f"{root / artifact.path} is not the artifact that the run recorded: digest {combine_digests(digests)}, "
            f"expected {artifact.digest}. Restore it, or remove the folder to have its stage run again."
        )
    return folders
