"""Folders as finished artifacts."""

from pathlib import Path

from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.result import ArtifactRef
from dynalign_contract.stages import Stage


def as_artifact(root: Path, path: str) -> ArtifactRef:
    """Write the manifest of the folder `path` below `root`, and refer to it."""
    paths = sorted(p.relative_to(root / path) for p in (root / path).rglob("*") if p.is_file())
    names = [p.as_posix() for p in paths if p.name != MANIFEST]
    files = tuple(describe_file(root / path, name) for name in names)
    manifest = Manifest(stage=Stage.FETCH, config_digest="sha256:" + "0" * 64, files=files)
    write_manifest(root / path, manifest)
    return ArtifactRef(path=path, digest=manifest.digest)
