"""An export is pushed to a real S3 server, read back, and pushed again only where something is missing."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import FetchParams
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import read_listed
from dynalign_contract.result import Outcome
from dynalign_contract.settings import PublishTarget, publish_credentials
from dynalign_contract.stores import Credentials, S3Server
from dynalign_trainer.export.bucket import push_to_bucket
from dynalign_trainer.export.pushing import Export, Push
from dynalign_trainer.stores.place import PublishMismatchError, StorePlace
from dynalign_trainer.stores.s3 import S3Folder, open_folder
from support.artifacts import as_artifact
from support.publishing import export, give_keys, run
from support.s3_server import BUCKET, PASSWORD, USERNAME, S3Process, s3_server

pytestmark = pytest.mark.slow

FIRST = publish_credentials(0)
PREFIX = "runs/tiny"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Process]:
    with s3_server(tmp_path_factory.mktemp("s3") / "buckets") as running:
        yield running


@pytest.fixture
def server(shared: S3Process) -> S3Process:
    """The server, whose bucket is empty."""
    client = shared.client()
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    return shared


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    give_keys(monkeypatch, USERNAME, PASSWORD)


def target(url: str, **changes: Any) -> PublishTarget:
    settings = {"endpoint": url, "bucket": BUCKET, "prefix": PREFIX, "credentialsSecretRef": {"name": "s3"}}
    return PublishTarget.model_validate({"s3": settings | changes})


def written(server: S3Process) -> dict[str, float]:
    """When each object was written last."""
    found = server.client().list_objects_v2(Bucket=BUCKET).get("Contents", ())
    return {entry["Key"]: server.object(entry["Key"]).stat().st_mtime_ns for entry in found}


def test_what_the_bucket_holds_is_the_export(publishing_root: Path, server: S3Process) -> None:
    result = export(publishing_root, target(server.url))
    assert (result.exit_code, result.outcome) == (0, Outcome.SUCCEEDED), result
    assert [place.uri for place in result.published] == [f"s3://{BUCKET}/{PREFIX}"]
    files = [path for path in (publishing_root / "export").iterdir() if path.is_file()]
    assert {f"{PREFIX}/{path.name}" for path in files} == set(written(server))
    for path in files:
        assert server.object(f"{PREFIX}/{path.name}").read_bytes() == path.read_bytes()


def test_a_second_push_writes_nothing(publishing_root: Path, server: S3Process) -> None:
    export(publishing_root, target(server.url))
    before = written(server)
    again = export(publishing_root, target(server.url))
    assert (again.outcome, [place.uri for place in again.published]) == (Outcome.SKIPPED, [f"s3://{BUCKET}/{PREFIX}"])
    assert before
    assert written(server) == before


def test_only_what_is_missing_or_changed_is_pushed_again(publishing_root: Path, server: S3Process) -> None:
    export(publishing_root, target(server.url))
    before = written(server)
    client = server.client()
    client.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/config.json")
    client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/tokenizer.json", Body=b"other")
    assert export(publishing_root, target(server.url)).exit_code == 0
    after = written(server)
    assert {key for key in after if after[key] != before[key]} == {
        f"{PREFIX}/{name}" for name in ("config.json", "tokenizer.json", MANIFEST)
    }


def test_a_place_that_is_added_later_gets_the_same_export(publishing_root: Path, server: S3Process) -> None:
    first = export(publishing_root)
    manifest = (publishing_root / "export" / MANIFEST).read_bytes()
    second = export(
        publishing_root, target(server.url), target(server.url, prefix="elsewhere", credentialsSecretRef=None)
    )
    assert (first.published, second.exit_code) == ((), ExitCode.BAD_CONFIG), "the second place has no keys"
    assert second.error is not None
    assert second.error.message.startswith("spec.export.publish[1].s3: s3://models/elsewhere")
    assert (publishing_root / "export" / MANIFEST).read_bytes() == manifest
    assert server.object(f"{PREFIX}/{MANIFEST}").read_bytes() == manifest


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "a wrong secret part": ({}, {FIRST.password: "wrong-wrong"}, "spec.export.publish[0].s3.credentialsSecretRef"),
    "an unknown key": ({}, {FIRST.username: "nobody"}, "access key ID"),
    "half of the keys": ({}, {FIRST.password: ""}, FIRST.password),
    "no keys": ({}, {FIRST.username: "", FIRST.password: ""}, "is refused"),
    "no bucket": ({"bucket": "nowhere"}, {}, "Create the bucket"),
}


@pytest.mark.parametrize(("changes", "environment", "says"), REFUSALS.values(), ids=REFUSALS)
def test_what_a_retry_cannot_help_is_bad_configuration(
    *,
    changes: dict[str, Any],
    environment: dict[str, str],
    says: str,
    publishing_root: Path,
    server: S3Process,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = export(publishing_root, target(server.url, **changes))
    assert result.exit_code == ExitCode.BAD_CONFIG, result
    assert result.error is not None
    assert says in result.error.message
    assert "spec.export.publish[0].s3" in result.error.message
    assert PASSWORD not in result.error.message
    assert read_listed(publishing_root / "export").files, "the export itself is whole"


def test_a_server_that_is_away_is_tried_again_without_a_new_export(publishing_root: Path, tmp_path: Path) -> None:
    buckets = tmp_path / "buckets"
    with s3_server(buckets) as down:
        pass
    failed = export(publishing_root, target(down.url))
    assert (failed.exit_code, failed.error and failed.error.reason) == (1, "StoreUnreachable"), failed
    before = (publishing_root / "export" / "model.safetensors").stat().st_mtime_ns
    with s3_server(buckets, port=int(down.url.rpartition(":")[2])) as up:
        again = export(publishing_root, target(up.url))
        assert (again.outcome, len(again.published)) == (Outcome.SKIPPED, 1), again
        assert up.object(f"{PREFIX}/{MANIFEST}").is_file()
    assert (publishing_root / "export" / "model.safetensors").stat().st_mtime_ns == before


def test_a_published_model_is_the_source_of_another_run(publishing_root: Path, server: S3Process) -> None:
    export(publishing_root, target(server.url))
    (publishing_root / "second").mkdir()
    uri = f"s3://{BUCKET}/{PREFIX}"
    fetched = run(publishing_root / "second", FetchParams(uri=uri, s3=S3Server(endpoint=server.url)))
    assert (fetched.exit_code, fetched.warnings) == (0, ()), fetched
    model = publishing_root / "second" / "model"
    assert (model / "model.safetensors").read_bytes() == (publishing_root / "export" / "model.safetensors").read_bytes()
    assert json.loads((model / "source.json").read_text()) == {"uri": uri}
    assert not (model / "README.md").exists()


def damage(server: S3Process) -> None:
    path = server.object(f"{PREFIX}/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def remove_config(server: S3Process) -> None:
    server.client().delete_object(Bucket=BUCKET, Key=f"{PREFIX}/config.json")


BAD_SOURCES: dict[str, tuple[Callable[[S3Process], None], str, int, str]] = {
    "damaged weights": (damage, PREFIX, ExitCode.BAD_INPUT, "model.safetensors has"),
    "no configuration": (remove_config, PREFIX, ExitCode.BAD_INPUT, "config.json"),
    "an empty folder": (lambda _: None, "runs/other", ExitCode.BAD_CONFIG, "nothing in this folder"),
}


@pytest.mark.parametrize(("change", "prefix", "code", "says"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_a_source_that_is_no_whole_model_is_refused(
    *, change: Callable[[S3Process], None], prefix: str, code: int, says: str, publishing_root: Path, server: S3Process
) -> None:
    export(publishing_root, target(server.url))
    change(server)
    (publishing_root / "second").mkdir()
    params = FetchParams(uri=f"s3://{BUCKET}/{prefix}", s3=S3Server(endpoint=server.url))
    result = run(publishing_root / "second", params)
    assert result.exit_code == code, result
    assert result.error is not None
    assert says in result.error.message


def test_a_model_of_another_program_has_no_digests(publishing_root: Path, server: S3Process) -> None:
    for path in (publishing_root / "model").iterdir():
        server.client().put_object(Bucket=BUCKET, Key=f"other/{path.name}", Body=path.read_bytes())
    (publishing_root / "second").mkdir()
    result = run(publishing_root / "second", FetchParams(uri=f"s3://{BUCKET}/other", s3=S3Server(endpoint=server.url)))
    assert result.exit_code == 0, result
    assert any("sizes alone were compared" in warning for warning in result.warnings)


class StoppedError(Exception):
    """Raised in the middle of a transfer."""


@pytest.fixture
def folder(server: S3Process) -> S3Folder:
    place = StorePlace("spec.export.publish[0].s3", f"s3://{BUCKET}/{PREFIX}", server.url, "a field", FIRST.names)
    keys = Credentials(USERNAME, PASSWORD)
    opened = open_folder(S3Server(endpoint=server.url), BUCKET, PREFIX, place, keys)
    return S3Folder(opened.client, place, BUCKET, PREFIX, part_bytes=5 << 20)


def large_export(tmp_path: Path, contents: bytes) -> Export:
    folder = tmp_path / "export"
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_bytes(contents)
    as_artifact(tmp_path, "export")
    return Export("tiny", folder, read_listed(folder))


def count_parts(folder: S3Folder) -> list[int]:
    """Numbers of the parts that are uploaded from now on."""
    sent: list[int] = []
    folder.client.meta.events.register(
        "provide-client-params.s3.UploadPart", lambda params, **_: sent.append(params["PartNumber"])
    )
    return sent


def stop_after(calls: int) -> Callable[[int], None]:
    left = [calls]

    def advance(_count: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StoppedError

    return advance


@pytest.mark.parametrize("changed", [False, True], ids=["same file", "another file since"])
def test_an_upload_goes_on_with_the_parts_that_are_there(changed: bool, folder: S3Folder, tmp_path: Path) -> None:
    contents = bytes(range(256)) * (12 << 12)
    export = large_export(tmp_path, contents)
    with pytest.raises(StoppedError):
        push_to_bucket(folder, export, Push(stop_after(1)))
    if changed:
        contents = contents[:-1] + b"x"
        export = large_export(tmp_path, contents)
    sent = count_parts(folder)
    assert push_to_bucket(folder, export, Push(lambda _: None))
    assert sent[:1] == [3], "two parts were uploaded before"
    found = folder.find("weights")
    assert found is not None
    assert found.sha256 == export.manifest.files[0].sha256
    assert b"".join(folder.read("weights")) == contents


def test_what_is_damaged_at_the_server_is_found_and_pushed_again(
    folder: S3Folder, server: S3Process, tmp_path: Path
) -> None:
    export = large_export(tmp_path, b"weights")

    def damage_once_stored(_count: int) -> None:
        server.object(f"{PREFIX}/weights").write_bytes(b"damaged")

    with pytest.raises(PublishMismatchError, match="weights was read back"):
        push_to_bucket(folder, export, Push(damage_once_stored))
    assert folder.find(MANIFEST) is None
    assert push_to_bucket(folder, export, Push(lambda _: None))
    assert server.object(f"{PREFIX}/weights").read_bytes() == b"weights"
