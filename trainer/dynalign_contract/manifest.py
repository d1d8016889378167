"""Manifest: what an artifact holds. It is written last, so its existence means that the artifact is complete.

An artifact is exactly what its manifest lists: a file that changed is as wrong as one that is missing or was added.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import Field, ValidationError, field_validator, model_validator

from dynalign_contract.base import Model
from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import NotAFileError, open_plain, sha256_of, write_bytes
from dynalign_contract.layout import MANIFEST, WORK_MARK, shard_folder
from dynalign_contract.result import ArtifactRef, Metric, combine_digests
from dynalign_contract.stages import Stage
from dynalign_contract.strangers import find_strangers, shown_name

SCHEMA_VERSION: Final = 2
"""1 had no seal, and its digest did not cover the rows; artifacts of that version are still read."""
MAX_MANIFEST_BYTES: Final = 16 << 20
_READERS: Final = 8


class ArtifactFile(Model):
    """One file of an artifact."""

    name: str = Field(min_length=1)
    """Path relative to the artifact's folder."""
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int = Field(default=0, ge=0)

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name or name == MANIFEST:
            raise ValueError(f"{name!r} is no file of an artifact")
        return name


class Manifest(Model):
    """Everything that a reader needs to trust an artifact."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    seal: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """Digest of the manifest's own text, with nothing in this place."""
    stage: Stage
    iteration: int | None = None
    config_digest: str
    """Digest of the StageConfig that produced it (`StageConfig.digest`)."""
    files: tuple[ArtifactFile, ...]
    metrics: tuple[Metric, ...] = ()
    producers: dict[str, str] = Field(default_factory=dict)
    """Library versions."""
    seconds: float = 0.0

    @model_validator(mode="after")
    def _names_each_file_once(self) -> "Manifest":
        if len({file.name for file in self.files}) != len(self.files):
            raise ValueError("a file is named twice")
        return self

    @property
    def digest(self) -> str:
        """Digest of the contents only: the same files give the same digest, independent of writer and time."""
        files = sorted(self.files, key=lambda f: f.name)
        rows = [[f.name, f.bytes, f.sha256, *([f.rows] if self.schema_version > 1 else [])] for f in files]
        return "sha256:" + hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def encode(self) -> bytes:
        """Serialise with a seal over every byte."""
        text = self.model_copy(update={"seal": ""}).to_json(indent=2).encode()
        return text.replace(_sealed(""), _sealed(_digest(text)), 1)

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """Parse a manifest; raises ValueError when it cannot be read, or its seal does not fit."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise ValueError(f"it has more than {MAX_MANIFEST_BYTES >> 20} MiB")
        manifest = cls.model_validate_json(data)
        if manifest.schema_version == 1:
            is_whole = not manifest.seal
        else:
            is_whole = manifest.seal == _digest(data.replace(_sealed(manifest.seal), _sealed(""), 1))
        if not is_whole:
            raise ValueError("its text was changed after it was written")
        return manifest


def describe_file(folder: Path, name: str, rows: int = 0) -> ArtifactFile:
    """Measure one file for the manifest (reads it whole)."""
    path = folder / name
    return ArtifactFile(name=name, bytes=path.stat().st_size, sha256=sha256_of(path), rows=rows)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest atomically. Call it last."""
    write_bytes(folder / MANIFEST, manifest.encode())


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, None where there is none.

    Raises CorruptArtifactError when there is one that cannot be read.
    """
    path = folder / MANIFEST
    try:
        with open_plain(path) as file:
            return Manifest.decode(file.read(MAX_MANIFEST_BYTES + 1))
    except FileNotFoundError:
        return None
    except (ValueError, NotAFileError, PermissionError, NotADirectoryError) as error:
        raise CorruptArtifactError(
            f"{path} is not a manifest that this version of dynalign can read ({_why(error)}). "
            f"Remove the folder {folder} to have the stage run again, or restore it from a backup."
        ) from error


def read_listed(folder: Path) -> Manifest:
    """The manifest of a finished artifact's folder. Raises CorruptArtifactError when there is none."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise CorruptArtifactError(
            f"{folder} has no {MANIFEST}: it is missing or half-written. Remove the folder to have its stage run again."
        )
    return manifest


def reference_to(path: str, manifest: Manifest) -> ArtifactRef:
    """The reference to the artifact at `path`, relative to the run's folder, that this manifest describes."""
    return ArtifactRef(
        path=path,
        digest=manifest.digest,
        bytes=sum(file.bytes for file in manifest.files),
        rows=sum(file.rows for file in manifest.files),
    )


def artifact_folders(root: Path, artifact: ArtifactRef) -> tuple[Path, ...]:
    """The folders of an artifact, one a shard, unverified.

    Raises CorruptArtifactError when its path leads out of the run's folder: only an edited status can say so.
    """
    path = PurePosixPath(artifact.path)
    if path.is_absolute() or ".." in path.parts:
        raise CorruptArtifactError(
            f"the artifact {artifact.path!r} lies outside the run's folder {root}, where no stage has written it. "
            "Remove it from the run's status, or start a new run."
        )
    return tuple(root / shard_folder(artifact.path, i, artifact.shards) for i in range(artifact.shards))


def verify_artifact(
    root: Path, artifact: ArtifactRef, on_bytes: Callable[[int], None] = lambda _: None
) -> tuple[Path, ...]:
    """Check an artifact, every byte of it and that there is nothing else, and return its folders (one a shard).

    `on_bytes` is called with the size of every file that has been checked, in the thread that has done so.
    Raises CorruptArtifactError naming the file and the remedy.
    """
    folders = artifact_folders(root, artifact)
    digests = []
    for folder in folders:
        manifest = read_listed(folder)
        verify_files(folder, manifest, on_bytes)
        digests.append(manifest.digest)
    if artifact.shards > 1:
        _refuse_strangers(root / artifact.path, [folder.name for folder in folders], known=())
    if combine_digests(digests) != artifact.digest:
        raise CorruptArtifactError(
            f"{root / artifact.path} is not the artifact that the run recorded: digest {combine_digests(digests)}, "
            f"expected {artifact.digest}. Restore it, or remove the folder to have its stage run again."
        )
    return folders


def verify_files(folder: Path, manifest: Manifest, on_bytes: Callable[[int], None] = lambda _: None) -> None:
    """Check that a folder holds exactly what its manifest lists. Raises CorruptArtifactError naming the file.

    Files are read side by side: hashing keeps one core at some 1.4 GB/s, and volumes deliver more.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        for _ in readers.map(partial(_verify_file, folder, on_bytes), manifest.files):
            pass
    _refuse_strangers(folder, [file.name for file in manifest.files])


def _verify_file(folder: Path, on_bytes: Callable[[int], None], file: ArtifactFile) -> None:
    path = folder / file.name
    remedy = f"Restore it, or remove the folder {folder} to have the stage run again."
    try:
        if sha256_of(path) == file.sha256 and path.lstat().st_size == file.bytes:
            on_bytes(file.bytes)
            return
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptArtifactError(f"{path} is named in {folder / MANIFEST} but does not exist. {remedy}") from error
    except (NotAFileError, PermissionError) as error:
        raise CorruptArtifactError(f"{path} cannot be read ({_why(error)}). {remedy}") from error
    raise CorruptArtifactError(
        f"{path} does not have the contents that {folder / MANIFEST} recorded: it was changed or damaged after "
        f"it was written. {remedy}"
    )


def _refuse_strangers(folder: Path, listed: list[str], known: Collection[str] = (MANIFEST, WORK_MARK)) -> None:
    strangers = find_strangers(folder, listed, known)
    if not strangers:
        return
    more = f", and {len(strangers) - 1} more" if len(strangers) > 1 else ""
    raise CorruptArtifactError(
        f"{folder}/{shown_name(strangers[0])} is no part of the artifact in {folder}, whose {MANIFEST} does not list "
        f"it{more}. A pod that went on writing after it was replaced leaves such files, or somebody put it there. The "
        "artifact itself is not damaged: remove what does not belong to it."
    )


def _sealed(seal: str) -> bytes:
    return f'"seal": "{seal}"'.encode()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def listed_names(folder: Path, prefix: str = "") -> Iterator[str]:
    """Names of the files that the folder's manifest lists and that begin with `prefix`, in order."""
    yield from sorted(file.name for file in read_listed(folder).files if file.name.startswith(prefix))
