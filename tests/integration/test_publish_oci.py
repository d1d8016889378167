"""An export becomes an artifact in a real OCI registry, with TLS and keys, and the model of another run."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import FetchParams
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.manifest import read_listed
from dynalign_contract.references import DOCKER_CONFIG_KEY
from dynalign_contract.result import Outcome
from dynalign_contract.settings import PublishTarget, publish_credentials
from dynalign_contract.stores import MODEL_CREDENTIALS
from dynalign_trainer.export.model_pack import build_model_pack
from lab.cluster import built_tools
from support.oci_registry import MANIFEST_TYPE, PASSWORD, USERNAME, Registry, oci_registry
from support.publishing import export, give_keys, run

pytestmark = pytest.mark.slow

FIRST = publish_credentials(0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with oci_registry(tmp_path_factory.mktemp("registry") / "data") as running:
        yield running


@pytest.fixture
def registry(shared: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry; its authority is trusted, and its keys are in the environment."""
    monkeypatch.setenv("SSL_CERT_FILE", str(shared.ca))
    give_keys(monkeypatch, USERNAME, PASSWORD)
    return shared


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    return f"models/{name.strip('-').replace('--', '-')[:100].rstrip('-')}"


def target(registry: Registry, repository: str, **changes: Any) -> PublishTarget:
    settings = {"registry": registry.host, "repository": repository, "tag": "v1", "credentialsSecretRef": {"name": "r"}}
    return PublishTarget.model_validate({"oci": settings | changes})


def manifest_of(registry: Registry, repository: str, reference: str = "v1") -> dict[str, Any]:
    found: dict[str, Any] = registry.get(f"{repository}/manifests/{reference}", Accept=MANIFEST_TYPE).json()
    return found


def test_the_artifact_has_the_layout_of_model_pack(publishing_root: Path, registry: Registry, repository: str) -> None:
    result = export(publishing_root, target(registry, repository))
    assert (result.exit_code, result.outcome) == (0, Outcome.SUCCEEDED), result
    manifest = manifest_of(registry, repository)
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    files = {file.name: file for file in read_listed(publishing_root / "export").files}
    layers = {layer["annotations"]["org.cncf.model.filepath"]: layer for layer in manifest["layers"]}
    assert layers.keys() == files.keys()
    for name, layer in layers.items():
        assert registry.blob(layer["digest"]).read_bytes() == (publishing_root / "export" / name).read_bytes()
    for name, kind in {"model.safetensors": "weight", "config.json": "weight.config", "README.md": "doc"}.items():
        assert layers[name]["mediaType"] == f"application/vnd.cncf.model.{kind}.v1.raw"
    config = json.loads(registry.blob(manifest["config"]["digest"]).read_bytes())
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in manifest["layers"]]}
    (place,) = result.published
    pinned = place.uri.partition("@")[2]
    assert manifest_of(registry, repository, pinned) == manifest


def test_a_second_push_uploads_nothing(publishing_root: Path, registry: Registry, repository: str) -> None:
    first = export(publishing_root, target(registry, repository))
    before = {path: path.stat().st_mtime_ns for path in registry.folder.rglob("*") if path.is_file()}
    again = export(publishing_root, target(registry, repository))
    assert (again.outcome, again.published) == (Outcome.SKIPPED, first.published)
    assert {path: path.stat().st_mtime_ns for path in registry.folder.rglob("*") if path.is_file()} == before


def test_a_missing_layer_and_a_missing_tag_are_pushed_again(
    publishing_root: Path, registry: Registry, repository: str
) -> None:
    """A push that was broken off has left some layers, and no tag."""
    export(publishing_root, target(registry, repository))
    name = "tokenizer.json"
    (digest,) = [file.sha256 for file in read_listed(publishing_root / "export").files if file.name == name]
    links = registry.folder / "docker/registry/v2/repositories" / repository
    for path in [links / "_layers/sha256" / digest / "link", links / "_manifests/tags/v1/current/link"]:
        path.unlink()
    assert registry.get(f"{repository}/blobs/sha256:{digest}").status_code == 404
    assert export(publishing_root, target(registry, repository)).exit_code == 0
    assert registry.get(f"{repository}/blobs/sha256:{digest}").status_code == 200
    assert manifest_of(registry, repository)["layers"]


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "a wrong password": ({}, {FIRST.password: "wrong"}, "spec.export.publish[0].oci.credentialsSecretRef"),
    "no keys": ({}, {FIRST.username: "", FIRST.password: ""}, "is refused"),
    "an authority that is not trusted": ({}, {"SSL_CERT_FILE": ""}, "certificate is not trusted"),
    "plain HTTP": ({"plainHttp": True}, {}, "rejects the request"),
}


@pytest.mark.parametrize(("changes", "environment", "says"), REFUSALS.values(), ids=REFUSALS)
def test_what_a_retry_cannot_help_is_bad_configuration(
    *,
    changes: dict[str, Any],
    environment: dict[str, str],
    says: str,
    publishing_root: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = export(publishing_root, target(registry, "models/refused", **changes))
    assert result.exit_code == ExitCode.BAD_CONFIG, result
    assert result.error is not None
    assert says in result.error.message
    assert PASSWORD not in result.error.message
    assert read_listed(publishing_root / "export").files, "the export itself is whole"


def test_a_registry_that_is_away_is_tried_again_without_a_new_export(
    publishing_root: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with oci_registry(tmp_path / "registry") as down:
        pass
    monkeypatch.setenv("SSL_CERT_FILE", str(down.ca))
    failed = export(publishing_root, target(down, "models/tiny"))
    assert (failed.exit_code, failed.error and failed.error.reason) == (1, "StoreUnreachable"), failed
    with oci_registry(tmp_path / "registry", port=int(down.host.rpartition(":")[2])) as up:
        again = export(publishing_root, target(up, "models/tiny"))
        assert (again.outcome, len(again.published)) == (Outcome.SKIPPED, 1), again
        assert manifest_of(up, "models/tiny")["layers"]


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_a_published_artifact_is_the_source_of_another_run(
    by: str, publishing_root: Path, registry: Registry, repository: str
) -> None:
    (place,) = export(publishing_root, target(registry, repository)).published
    uri = place.uri if by == "digest" else f"oci://{registry.host}/{repository}:v1"
    (publishing_root / "second").mkdir()
    fetched = run(publishing_root / "second", FetchParams(uri=uri))
    assert (fetched.exit_code, fetched.warnings) == (0, ()), fetched
    model = publishing_root / "second" / "model"
    weights = "model.safetensors"
    assert (model / weights).read_bytes() == (publishing_root / "export" / weights).read_bytes()
    assert json.loads((model / "source.json").read_text()) == {"uri": uri, "commit": place.uri.partition("@")[2]}


@pytest.mark.parametrize(
    ("reference", "code", "says"),
    [("v9", ExitCode.BAD_CONFIG, "no artifact 'v9'"), ("v1", ExitCode.BAD_INPUT, "model.safetensors has")],
    ids=["no such tag", "damaged at the registry"],
)
def test_an_artifact_that_cannot_be_had_is_refused(
    *, reference: str, code: int, says: str, publishing_root: Path, registry: Registry, repository: str
) -> None:
    export(publishing_root, target(registry, repository))
    (digest,) = [f.sha256 for f in read_listed(publishing_root / "export").files if f.name == "model.safetensors"]
    blob = registry.blob(f"sha256:{digest}")
    contents = blob.read_bytes()
    try:
        blob.write_bytes(contents[:-1] + b"x")
        (publishing_root / "second").mkdir()
        uri = f"oci://{registry.host}/{repository}:{reference}"
        result = run(publishing_root / "second", FetchParams(uri=uri))
    finally:
        blob.write_bytes(contents)
    assert result.exit_code == code, result
    assert result.error is not None
    assert says in result.error.message


def test_the_keys_may_come_from_a_docker_configuration(
    publishing_root: Path, registry: Registry, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a Secret of type kubernetes.io/dockerconfigjson holds it: made by kubectl, for publishing and for fetching."""
    command = ["create", "secret", "docker-registry", "r", "--dry-run=client", "-o", "json"]
    keys = [f"--docker-server={registry.host}", f"--docker-username={USERNAME}", f"--docker-password={PASSWORD}"]
    made = subprocess.run([built_tools() / "kubectl", *command, *keys], capture_output=True, check=True)
    text = base64.b64decode(json.loads(made.stdout)["data"][DOCKER_CONFIG_KEY]).decode()
    give_keys(monkeypatch, "", "")
    for variables in (FIRST, MODEL_CREDENTIALS):
        monkeypatch.setenv(variables.docker_config, text)
    reference = {"name": "r", "dockerConfigKey": DOCKER_CONFIG_KEY}
    result = export(publishing_root, target(registry, repository, credentialsSecretRef=reference))
    assert result.exit_code == 0, result
    (place,) = result.published
    (publishing_root / "second").mkdir()
    assert run(publishing_root / "second", FetchParams(uri=place.uri)).exit_code == 0


def test_a_docker_configuration_without_the_registry_is_bad_configuration(
    publishing_root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = json.dumps({"auths": {"elsewhere.example.com": {"username": USERNAME, "password": PASSWORD}}})
    monkeypatch.setenv(FIRST.docker_config, elsewhere)
    result = export(publishing_root, target(registry, "models/refused"))
    assert result.exit_code == ExitCode.BAD_CONFIG, result
    assert result.error is not None
    assert f"has no entry for {registry.host}, only for: elsewhere.example.com" in result.error.message
    assert "spec.export.publish[0].oci.credentialsSecretRef" in result.error.message
    assert PASSWORD not in result.error.message


def test_the_same_export_has_the_same_digest(publishing_root: Path) -> None:
    export(publishing_root)
    manifest = read_listed(publishing_root / "export")
    again = manifest.model_copy(update={"seconds": 9.0, "files": tuple(reversed(manifest.files))})
    assert build_model_pack("a", manifest, {}).digest == build_model_pack("a", again, {}).digest
    assert build_model_pack("a", manifest, {}).digest != build_model_pack("b", manifest, {}).digest
