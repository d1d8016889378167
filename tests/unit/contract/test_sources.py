"""Addresses of models, prompts and texts: one parser, and patterns that accept just what it does."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from dynalign_contract.source_files import LinkError, locate
from dynalign_contract.sources import (
    BundledSource,
    ClaimSource,
    FileUri,
    HubSource,
    ModelUri,
    OciSource,
    PathSource,
    S3Source,
    Source,
    SourceError,
    parse_source,
)

PINNED = "sha256:" + "a" * 64
ACCEPTED: dict[str, Source] = {
    "hf://Qwen/Qwen3-8B": HubSource("Qwen/Qwen3-8B"),
    "s3://my-models/runs/mine": S3Source("my-models", "runs/mine"),
    "s3://my-models/runs/mine/": S3Source("my-models", "runs/mine"),
    "oci://registry.example.com/models/mine": OciSource("registry.example.com", "models/mine", "latest"),
    "oci://registry:5000/mine:v1.2_a": OciSource("registry:5000", "mine", "v1.2_a"),
    f"oci://[::1]:5000/a/b-c/d__e@{PINNED}": OciSource("[::1]:5000", "a/b-c/d__e", PINNED),
    "hf://Qwen/Qwen3-8B@refs/pr/7": HubSource("Qwen/Qwen3-8B", "refs/pr/7"),
    "pvc://weights/qwen": ClaimSource("weights", "qwen"),
    "pvc://team.weights-1/a/./.b/..c/...": ClaimSource("team.weights-1", "a/./.b/..c/..."),
    "pvc://weights/modèle 1/": ClaimSource("weights", "modèle 1"),
    "bundled://smollm2-135m-instruct": BundledSource("smollm2-135m-instruct"),
    "/models/qwen": PathSource("/models/qwen"),
    "./mine.jsonl": PathSource("./mine.jsonl"),
    "./../models/qwen": PathSource("./../models/qwen"),
}
REFUSED = (
    "",
    "/",
    "models/qwen",
    "../models",
    "~/models",
    "hf://qwen",
    "hf://../qwen",
    "hf://org/..",
    "hf://org/name@../x",
    "hf://org/name?x=y",
    "https://hub/org/name",
    "s3://models",
    "oci://registry.example.com",
    "oci://registry.example.com/",
    "oci://registry.example.com/Models",
    "oci://registry.example.com/../models",
    "oci://registry.example.com/models:",
    "oci://registry.example.com/models:a/b",
    "oci://registry.example.com/models@sha256:abc",
    "oci://user@registry.example.com/models",
    "oci://127.1/models",
    "s3://Models/x",
    "s3://models/../x",
    "s3://models//x",
    "pvc://weights",
    "pvc://weights/",
    "pvc://../x",
    "pvc://./x",
    "pvc://-a/x",
    "pvc://a-/x",
    "pvc://a..b/x",
    "pvc://Weights/x",
    "pvc://weights/..",
    "pvc://weights/../other",
    "pvc://weights/a/../../../etc",
    "pvc://weights//a",
    "//volume/run/export",
    "pvc://weights/a\nb",
    "pvc://weights/a\x00",
    "bundled://../x",
    "/models/../etc",
    "/..",
    "./",
    "/" + "x" * 1024,
)


@pytest.mark.parametrize(("uri", "source"), ACCEPTED.items())
def test_what_is_accepted(uri: str, source: Source) -> None:
    assert parse_source(uri) == source
    assert TypeAdapter(ModelUri).validate_python(uri) == uri


@pytest.mark.parametrize("uri", REFUSED)
def test_what_is_refused_by_the_parser_and_by_the_pattern(uri: str) -> None:
    with pytest.raises(SourceError, match="write hf://org/name, s3://bucket/folder, oci://registry"):
        parse_source(uri)
    for kind in (ModelUri, FileUri):
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(uri)


@pytest.mark.parametrize("uri", ACCEPTED)
def test_files_lie_on_claims_and_paths_only(uri: str) -> None:
    try:
        TypeAdapter(FileUri).validate_python(uri)
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted is isinstance(ACCEPTED[uri], ClaimSource | PathSource)


@pytest.mark.parametrize(
    ("path", "boundary"),
    [
        ("/volume/other-run/export", "/volume"),
        ("/pvc/weights/qwen", "/pvc/weights"),
        ("/models/qwen", None),
    ],
)
def test_links_must_stay_on_the_volume_that_the_path_is_on(path: str, boundary: str | None) -> None:
    assert locate(PathSource(path), {}).boundary == (Path(boundary) if boundary else None)


def test_a_folder_of_the_claim_that_is_a_link_out_of_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").touch()
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "folder").symlink_to("../elsewhere")
    located = locate(ClaimSource("claim", "folder/x"), {"DYNALIGN_PVC_ROOT": str(tmp_path)})
    with pytest.raises(LinkError, match="leads out of"):
        located.follow(located.path)
