"""The data set of a run is published beside its model, or instead of it: to a real S3 server, a real registry, and a hub's stand-in."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import MANIFEST
from dynalign_contract.result import Outcome
from dynalign_contract.settings import PublishTarget, publish_credentials, publish_token
from dynalign_report.data_set import ANSWERS, CARD, PREFERENCES, write_data_set
from dynalign_trainer.export.contents import DATA_FOLDER
from support import oci_registry, s3_server
from support.hub_store import HubStore
from support.publishing import export
from support.report_runs import WorkFolder

pytestmark = pytest.mark.slow

RUN = WorkFolder(name="tiny").of_size(2, 3, 2)
FILES = {
    CARD,
    *(f"{table}/iteration-{iteration:03d}.parquet" for table in (ANSWERS, PREFERENCES) for iteration in range(2)),
}


@pytest.fixture
def root(publishing_root: Path) -> Path:
    """A run that has fetched the tiny model, and judged two iterations."""
    return RUN.write(publishing_root)


@pytest.fixture
def expected(root: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files that `dynalign export-data` writes."""
    folder = tmp_path / "expected"
    assert write_data_set(root, "tiny", "/m", folder, margin=0.0).answers == 12
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.S3Process]:
    with s3_server.s3_server(tmp_path_factory.mktemp("s3") / "buckets") as running:
        yield running


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[oci_registry.Registry]:
    with oci_registry.oci_registry(tmp_path_factory.mktemp("registry") / "data") as running:
        yield running


def give(monkeypatch: pytest.MonkeyPatch, index: int, username: str, password: str) -> None:
    variables = publish_credentials(index)
    monkeypatch.setenv(variables.username, username)
    monkeypatch.setenv(variables.password, password)


def place(kind: str, *, content: str = "Data", **settings: Any) -> PublishTarget:
    return PublishTarget.model_validate({"content": content, kind: settings})


def test_a_bucket_has_model_and_data_in_folders_of_their_own(
    root: Path, expected: dict[str, bytes], bucket: s3_server.S3Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(2):
        give(monkeypatch, index, s3_server.USERNAME, s3_server.PASSWORD)
    at: dict[str, Any] = {"endpoint": bucket.url, "bucket": s3_server.BUCKET, "credentialsSecretRef": {"name": "s3"}}
    places = (place("s3", content="Model", prefix="mine/model", **at), place("s3", prefix="mine/data", **at))
    result = export(root, *places)
    assert (result.exit_code, result.outcome) == (0, Outcome.SUCCEEDED), result
    assert [found.uri for found in result.published] == ["s3://models/mine/model", "s3://models/mine/data"]
    assert expected.keys() == FILES
    for name, contents in expected.items():
        assert bucket.object(f"mine/data/{name}").read_bytes() == contents, name
    assert bucket.object("mine/model/config.json").is_file()
    assert not (root / DATA_FOLDER).exists()
    manifest = bucket.object(f"mine/data/{MANIFEST}")
    before = manifest.stat().st_mtime_ns
    assert export(root, *places).outcome is Outcome.SKIPPED
    assert manifest.stat().st_mtime_ns == before, "the same data is not written again"


def test_a_registry_has_the_data_as_an_artifact(
    root: Path, expected: dict[str, bytes], registry: oci_registry.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(registry.ca))
    give(monkeypatch, 0, oci_registry.USERNAME, oci_registry.PASSWORD)
    at: dict[str, Any] = {
        "registry": registry.host,
        "repository": "data/tiny",
        "tag": "v1",
        "credentialsSecretRef": {"name": "r"},
    }
    result = export(root, place("oci", **at))
    assert result.exit_code == 0, result
    answer = registry.get("data/tiny/manifests/v1", Accept="application/vnd.oci.image.manifest.v1+json")
    manifest = answer.json()
    assert manifest["artifactType"] == "application/vnd.dynalign.data.v1"
    assert registry.blob(manifest["config"]["digest"]).read_bytes() == b"{}"
    layers = {layer["annotations"]["org.opencontainers.image.title"]: layer for layer in manifest["layers"]}
    assert layers.keys() == expected.keys()
    for name, contents in expected.items():
        assert registry.blob(layers[name]["digest"]).read_bytes() == contents, name
    assert layers[CARD]["mediaType"] == "text/markdown"
    again = export(root, place("oci", **at))
    assert (again.outcome, again.published) == (Outcome.SKIPPED, result.published)


def test_a_hub_has_the_data_as_a_repository_of_data_sets(
    root: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at: dict[str, Any] = {
        "repository": "my-team/tiny",
        "license": "cc0-1.0",
        "tokenSecretRef": {"name": "hub", "key": "t"},
    }
    with HubStore("a-token") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv(publish_token(0), "a-token")
        result = export(root, place("hub", **at))
        assert result.exit_code == 0, result
        again = export(root, place("hub", **at))
    (repository,) = [hub.repositories["datasets/my-team/tiny"]]
    assert [found.uri for found in result.published] == [f"hf://datasets/my-team/tiny@{repository.branches['main']}"]
    assert again.published == result.published
    files = repository.files("main") or {}
    assert {name: data for name, data in files.items() if name != CARD} == {
        name: data for name, data in expected.items() if name != CARD
    }
    front = yaml.safe_load(files[CARD].decode().split("---\n")[1])
    assert front["license"] == "cc0-1.0"
    assert [one["config_name"] for one in front["configs"]] == [ANSWERS, PREFERENCES]
    (tmp_path / "pairs.parquet").write_bytes(files[f"{PREFERENCES}/iteration-000.parquet"])
    assert json.dumps(pq.read_table(tmp_path / "pairs.parquet").to_pylist()[0]["chosen"])


def test_a_run_without_judged_answers_publishes_no_data(publishing_root: Path) -> None:
    result = export(publishing_root, place("s3", endpoint="http://127.0.0.1:1", bucket="models", prefix="mine"))
    assert result.exit_code == ExitCode.BAD_INPUT, result
    assert result.error is not None
    assert "content: Data" in result.error.message
    assert (publishing_root / "export" / MANIFEST).is_file(), "the export itself is whole"
