"""Artifacts are whole and unchanged, or refused with the file's name."""

from pathlib import Path

import pytest

from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import (
    Manifest,
    describe_file,
    read_manifest,
    verify_artifact,
    write_manifest,
)
from dynalign_contract.result import ArtifactRef, combine_artifacts
from dynalign_contract.stages import Stage

CONFIG = "sha256:" + "0" * 64


def write_artifact(root: Path, path: str, contents: dict[str, bytes]) -> ArtifactRef:
    folder = root / path
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    manifest = Manifest(
        stage=Stage.GENERATE,
        iteration=0,
        config_digest=CONFIG,
        files=tuple(describe_file(folder, name, rows=3) for name in contents),
    )
    write_manifest(folder, manifest)
    return ArtifactRef(
        path=path, digest=manifest.digest, bytes=sum(map(len, contents.values())), rows=3 * len(contents)
    )


def test_an_intact_artifact_is_accepted(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path, "a", {"x": b"1", "y": b"22"})
    assert verify_artifact(tmp_path, artifact) == (tmp_path / "a",)


def damage_contents(folder: Path) -> None:
    (folder / "x").write_bytes(b"2")


def damage_length(folder: Path) -> None:
    (folder / "x").write_bytes(b"1234")


def remove_file(folder: Path) -> None:
    (folder / "x").unlink()


def remove_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def cut_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(text[: len(text) // 2])


def rewrite_consistently(folder: Path) -> None:
    (folder / "x").write_bytes(b"9")
    manifest = read_manifest(folder)
    assert manifest is not None
    write_manifest(folder, manifest.model_copy(update={"files": (describe_file(folder, "x", rows=3),)}))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_contents, "a/x"),
        (damage_length, "a/x"),
        (remove_file, "a/x"),
        (remove_manifest, "manifest.json"),
        (cut_manifest, "manifest.json"),
        (rewrite_consistently, "is not the artifact that the run recorded"),
    ],
)
def test_a_damaged_artifact_is_refused_and_the_file_named(tmp_path: Path, damage, named: str) -> None:  # type: ignore[no-untyped-def]
    artifact = write_artifact(tmp_path, "a", {"x": b"1"})
    damage(tmp_path / "a")
    with pytest.raises(CorruptArtifactError) as caught:
        verify_artifact(tmp_path, artifact)
    assert named in str(caught.value)
    assert "Remove the folder" in str(caught.value) or "remove the folder" in str(caught.value)


def test_the_digest_is_of_the_contents_only(tmp_path: Path) -> None:
    first = write_artifact(tmp_path, "a", {"x": b"1", "y": b"2"})
    second = write_artifact(tmp_path, "b", {"y": b"2", "x": b"1"})
    third = write_artifact(tmp_path, "c", {"x": b"1", "y": b"3"})
    assert first.digest == second.digest != third.digest


def test_shards_form_one_artifact(tmp_path: Path) -> None:
    shards = [write_artifact(tmp_path, f"r/shard-{i:03d}", {"x": bytes([i])}) for i in range(3)]
    whole = combine_artifacts("r", shards)
    assert (whole.shards, whole.rows) == (3, 9)
    assert verify_artifact(tmp_path, whole) == tuple(tmp_path / s.path for s in shards)
    (tmp_path / "r/shard-001/x").write_bytes(b"!")
    with pytest.raises(CorruptArtifactError, match="shard-001/x"):
        verify_artifact(tmp_path, whole)
