"""Artifacts are whole and unchanged, or refused with the file's name."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import atomic_path
from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    describe_file,
    read_manifest,
    verify_artifact,
    write_manifest,
)
from dynalign_contract.result import ArtifactRef, Metric, combine_artifacts
from dynalign_contract.stages import Stage

CONFIG = "sha256:" + "0" * 64


def write_artifact(root: Path, path: str, contents: dict[str, bytes]) -> ArtifactRef:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    manifest = Manifest(
        stage=Stage.GENERATE,
        iteration=0,
        config_digest=CONFIG,
        files=tuple(describe_file(folder, name, rows=3) for name in contents),
        metrics=(Metric(name="reward", value=1.5),),
        producers={"torch": "2.13.0"},
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


def replace(kind: str, name: str = "x") -> Callable[[Path], None]:
    """Put something else in a file's place, of the same contents where it has any."""

    def damage(folder: Path) -> None:
        path = folder / name
        aside = folder.parent / f"aside-{name}"
        path.rename(aside)
        match kind:
            case "link":
                path.symlink_to(aside)
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()

    return damage


def write_manifest_bytes(data: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / MANIFEST).write_bytes(data)

    return damage


def edit_manifest(before: bytes, after: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / MANIFEST).read_bytes()
        assert before in data
        (folder / MANIFEST).write_bytes(data.replace(before, after, 1))

    return damage


def list_file(name: str) -> Callable[[Path], None]:
    """A manifest, sealed as if it were ours, that lists a file of this name."""

    def damage(folder: Path) -> None:
        manifest = read_manifest(folder)
        assert manifest is not None
        file = manifest.files[0].model_copy(update={"name": name})
        write_manifest(folder, manifest.model_copy(update={"files": (file,)}))

    return damage


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_contents, "a/x"),
        (replace("link"), "a/x is a symbolic link"),
        (replace("pipe"), "a/x is a pipe"),
        (replace("folder"), "a/x is a folder"),
        (replace("link", MANIFEST), "manifest.json is a symbolic link"),
        (replace("pipe", MANIFEST), "manifest.json is a pipe"),
        (replace("folder", MANIFEST), "manifest.json is a folder"),
        (write_manifest_bytes(b""), "manifest.json"),
        (write_manifest_bytes(b"\xff\xfe{"), "manifest.json"),
        (write_manifest_bytes(b"[" * 100_000), "manifest.json"),
        (write_manifest_bytes(b" " * (MAX_MANIFEST_BYTES + 1)), "more than 16 MiB"),
        (edit_manifest(b'"rows": 3', b'"rows": 4'), "its text was changed"),
        (edit_manifest(b'"torch": "2', b'"torch": "3'), "its text was changed"),
        (edit_manifest(b'"value": 1.5', b'"value": 2.5'), "its text was changed"),
        (edit_manifest(b'"seconds": 0', b'"seconds": 1'), "its text was changed"),
        (edit_manifest(b'  "stage"', b'\t "stage"'), "its text was changed"),
        (edit_manifest(b'"schemaVersion": 2', b'"schemaVersion": 1'), "its text was changed"),
        (edit_manifest(b'"schemaVersion": 2', b'"schemaVersion": 9'), "manifest.json"),
        (list_file("../b/x"), "manifest.json"),
        (list_file("/etc/passwd"), "manifest.json"),
        (damage_length, "a/x"),
        (remove_file, "a/x"),
        (remove_manifest, "manifest.json"),
        (cut_manifest, "manifest.json"),
        (rewrite_consistently, "is not the artifact that the run recorded"),
    ],
)
def test_a_damaged_artifact_is_refused_and_the_file_named(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    artifact = write_artifact(tmp_path, "a", {"x": b"1"})
    damage(tmp_path / "a")
    with pytest.raises(CorruptArtifactError) as caught:
        verify_artifact(tmp_path, artifact)
    assert named in str(caught.value)
    assert "Remove the folder" in str(caught.value) or "remove the folder" in str(caught.value)


def put(name: str, kind: str = "file") -> Callable[[Path], None]:
    def add(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "file":
                path.write_bytes(b"")
            case "folder":
                path.mkdir()
            case "link":
                path.symlink_to("x")
            case "pipe":
                os.mkfifo(path)

    return add


@pytest.mark.parametrize(
    ("add", "named"),
    [
        (put("part-00001.parquet"), "part-00001.parquet"),
        (put("zz.safetensors"), "zz.safetensors"),
        (put(".hidden"), ".hidden"),
        (put("nested/deeper/y"), "nested"),
        (put("sub/y"), "sub/y"),
        (put("empty", "folder"), "empty"),
        (put("link", "link"), "link"),
        (put("pipe", "pipe"), "pipe"),
        (put(".x.12.tmp", "folder"), ".x.12.tmp"),
        (put(".x.12.tmp", "link"), ".x.12.tmp"),
        (put(".x.tmp"), ".x.tmp"),
        (put("manifest.json.bak"), "manifest.json.bak"),
        (put("a\nb"), r"'a\nb'"),
        (put("\udcff"), r"'\udcff'"),
    ],
)
def test_what_the_manifest_does_not_list_is_refused_and_named(
    tmp_path: Path, add: Callable[[Path], None], named: str
) -> None:
    (tmp_path / "a/sub").mkdir(parents=True)
    artifact = write_artifact(tmp_path, "a", {"x": b"1", "sub/z": b"2"})
    add(tmp_path / "a")
    with pytest.raises(CorruptArtifactError, match=f"a/{re.escape(named)} is no part of the artifact.*remove"):
        verify_artifact(tmp_path, artifact)


@pytest.mark.parametrize("path", ["../other/a", "/etc", "a/../../other"])
def test_an_artifact_outside_the_runs_folder_is_refused(tmp_path: Path, path: str) -> None:
    artifact = write_artifact(tmp_path, "other/a", {"x": b"1"})
    with pytest.raises(CorruptArtifactError, match="outside the run's folder"):
        verify_artifact(tmp_path / "run", artifact.model_copy(update={"path": path}))


def test_what_a_writer_has_not_finished_is_no_damage(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path, "a", {"x": b"1"})
    with atomic_path(tmp_path / "a" / "x") as temporary:
        temporary.write_bytes(b"1")
        assert verify_artifact(tmp_path, artifact)


def test_what_nfs_keeps_of_a_file_that_somebody_has_open_is_no_damage(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path, "a", {"x": b"1"})
    put(".nfs000000000a1b2c3d00000007")(tmp_path / "a")
    assert verify_artifact(tmp_path, artifact)


def test_an_artifact_of_an_earlier_version_is_still_read(tmp_path: Path) -> None:
    write_artifact(tmp_path, "a", {"x": b"1"})
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None
    earlier = manifest.model_copy(update={"schema_version": 1})
    text = json.loads(earlier.to_json())
    del text["seal"]
    (tmp_path / "a" / MANIFEST).write_text(json.dumps(text))
    assert earlier.digest != manifest.digest
    assert verify_artifact(tmp_path, ArtifactRef(path="a", digest=earlier.digest))


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
    put("r/shard-003/x")(tmp_path)
    with pytest.raises(CorruptArtifactError, match="r/shard-003 is no part"):
        verify_artifact(tmp_path, whole)
    (tmp_path / "r/shard-001/x").write_bytes(b"!")
    with pytest.raises(CorruptArtifactError, match="shard-001/x"):
        verify_artifact(tmp_path, whole)
