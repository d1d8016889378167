"""A run in one file: specification, status, manifests, configurations and report, as a reproducible tar archive."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from dynalign_contract.config import StageConfig
from dynalign_contract.layout import MANIFEST, shard_folder
from dynalign_contract.manifest import Manifest
from dynalign_operator.api.stored import read_stored
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.provenance.lineage import Lineage, Link, recorded_artifacts

INDEX: Final = "dynalign.json"
"""Name and digest of every other file but the attestation."""
ATTESTATION: Final = "attestation.dsse.json"
RUN: Final = "run.json"
REPORT: Final = "report.html"
_SCHEMA_VERSION: Final = 1
_LONGEST: Final = 64 << 20
"""Bytes of a file in a bundle that is read."""


class BundleError(ValueError):
    """A file is no bundle, or was changed after it was written; the message says where."""


@dataclass(frozen=True)
class Bundle:
    """The contents of a bundle."""

    files: Mapping[str, bytes]
    """Name -> contents, without index and attestation."""
    index: bytes
    attestation: bytes | None
    run: AlignmentRun
    lineage: Lineage


def bundled_files(run: AlignmentRun, lineage: Lineage, report: bytes | None) -> dict[str, bytes]:
    """What a bundle holds, by name."""
    files = {RUN: run.to_json(indent=2).encode()}
    for link in lineage.links:
        for number, manifest in enumerate(link.manifests):
            folder = shard_folder(link.artifact.path, number, link.artifact.shards)
            files[f"artifacts/{folder}/{MANIFEST}"] = manifest.encode()
        if link.config is not None:
            files[_config_name(link.config.digest)] = link.config.to_json(indent=2).encode()
    return files if report is None else {**files, REPORT: report}


def build_index(run: str, files: Mapping[str, bytes]) -> bytes:
    """The index of a bundle's files."""
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    return json.dumps({"schemaVersion": _SCHEMA_VERSION, "run": run, "files": digests}, indent=2).encode()


def write_bundle(path: Path, files: Mapping[str, bytes], index: bytes, attestation: bytes | None) -> None:
    """Write the archive: sorted, without times and owners, so that the same contents are the same bytes."""
    contents = {**files, INDEX: index, **({} if attestation is None else {ATTESTATION: attestation})}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(contents):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(contents[name]), 0o644
            archive.addfile(entry, io.BytesIO(contents[name]))


def read_bundle(path: Path) -> Bundle:
    """Read an archive, whose files are those that its index names. Raises BundleError and OSError."""
    contents = _read_archive(path)
    attestation, index = contents.pop(ATTESTATION, None), contents.pop(INDEX, None)
    if index is None:
        raise BundleError(f"{path} has no {INDEX}: it is no bundle of `dynalign export-run`, or was cut off")
    _compare(path, contents, index)
    try:
        run = read_stored(AlignmentRun, json.loads(contents[RUN]))
    except (ValueError, KeyError, RecursionError) as error:
        raise BundleError(f"{path}: {RUN} cannot be read ({type(error).__name__}: {error})") from error
    return Bundle(contents, index, attestation, run, _lineage(path, run, contents))


def _read_archive(path: Path) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isreg() and entry.size <= _LONGEST else None
                if file is None or entry.name in contents:
                    raise BundleError(f"{path}: {entry.name} is no file of a bundle, or is there twice")
                contents[entry.name] = file.read()
    except tarfile.TarError as error:
        raise BundleError(f"{path} is no tar archive, or was cut off ({error})") from error
    return contents


def _compare(path: Path, contents: Mapping[str, bytes], index: bytes) -> None:
    try:
        listed: dict[str, Any] = json.loads(index)["files"]
        names = set(listed)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: {INDEX} cannot be read ({type(error).__name__}: {error})") from error
    for name in sorted(names | contents.keys()):
        if name not in contents:
            raise BundleError(f"{path}: {name} is missing")
        if hashlib.sha256(contents[name]).hexdigest() != listed.get(name):
            raise BundleError(f"{path}: {name} was changed or added after the bundle was written")


def _lineage(path: Path, run: AlignmentRun, contents: Mapping[str, bytes]) -> Lineage:
    links = []
    for step, artifact in recorded_artifacts(run.status):
        folders = [shard_folder(artifact.path, number, artifact.shards) for number in range(artifact.shards)]
        texts = [contents[name] for folder in folders if (name := f"artifacts/{folder}/{MANIFEST}") in contents]
        try:
            manifests = tuple(Manifest.decode(text) for text in texts) if len(texts) == artifact.shards else ()
            text = contents.get(_config_name(manifests[0].config_digest)) if manifests else None
            config = None if text is None else StageConfig.model_validate_json(text)
        except (ValueError, ValidationError) as error:
            raise BundleError(f"{path}: a file of {artifact.path} cannot be read ({error})") from error
        links.append(Link(step, artifact, manifests, config))
    return Lineage(tuple(links))


def _config_name(digest: str) -> str:
    return f"configs/{digest.removeprefix('sha256:')}.json"
