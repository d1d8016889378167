"""`dynalign verify` notices whatever was changed, from the model to the export, in a folder and in a bundle."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dynalign_contract.config import StageConfig
from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import read_listed
from dynalign_operator.cli.main import app
from support.builders import a_run
from support.finished_runs import seal, write_finished_run

RUN = a_run().with_iterations(2).with_spec(generation={"shards": 2})
ROLLOUTS = "iterations/000/rollouts/shard-000"
PROMPTS = "iterations/000/prompts"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished") / "r"
    root.mkdir()
    write_finished_run(root, RUN)
    return root


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "r"))


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_a_folder_that_nobody_has_touched_is_whole(folder: Path) -> None:
    code, said = call("verify", folder)
    assert (code, said) == (
        0,
        "r: 12 artifacts as recorded, 12 of them with the configuration that names their inputs.\n",
    )


def test_configurations_that_are_gone_are_built_anew(folder: Path) -> None:
    shutil.rmtree(folder / ".jobs")
    code, said = call("verify", folder)
    assert code == 0, said
    assert "12 artifacts as recorded, 12 of them with the configuration" in said


def change_a_byte(folder: Path) -> None:
    (folder / ROLLOUTS / "contents.txt").write_text("other contents")


def remove_a_file(folder: Path) -> None:
    (folder / PROMPTS / "contents.txt").unlink()


def add_a_file(folder: Path) -> None:
    (folder / "export" / "more.bin").write_text("x")


def remove_a_manifest(folder: Path) -> None:
    (folder / "model" / MANIFEST).unlink()


def edit_a_manifest(folder: Path) -> None:
    path = folder / "model" / MANIFEST
    path.write_text(path.read_text().replace('"seconds": 0.0', '"seconds": 1.0'))


def config_of(folder: Path, path: str) -> StageConfig:
    digest = read_listed(folder / path).config_digest
    configs = (StageConfig.model_validate_json(p.read_bytes()) for p in (folder / ".jobs").glob("*/stage.json"))
    return next(config for config in configs if config.digest == digest)


def replace_an_artifact(folder: Path) -> None:
    """The prompts with their manifest: whole by itself, and not what the run recorded."""
    (folder / PROMPTS / "contents.txt").write_text("other prompts")
    seal(folder, PROMPTS, config_of(folder, PROMPTS))


def replace_an_artifact_and_its_record(folder: Path) -> None:
    """The status says the same then; what was made from the prompts does not."""
    before = read_listed(folder / PROMPTS).digest
    replace_an_artifact(folder)
    run = folder / "run.json"
    run.write_text(run.read_text().replace(before, read_listed(folder / PROMPTS).digest))


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a byte": (change_a_byte, f"{ROLLOUTS}/contents.txt does not have the contents"),
    "a file that is gone": (remove_a_file, f"{PROMPTS}/contents.txt is named in"),
    "a file more": (add_a_file, "export/more.bin is no part of the artifact"),
    "no manifest": (remove_a_manifest, "model: its manifest is missing"),
    "an edited manifest": (edit_a_manifest, "its text was changed after it was written"),
    "other prompts": (replace_an_artifact, f"{PROMPTS}: its manifest has the digest"),
    "other prompts, recorded": (replace_an_artifact_and_its_record, f"it was made from {PROMPTS} (prompts)"),
}


@pytest.mark.parametrize(("change", "says"), TAMPERED.values(), ids=TAMPERED)
def test_what_was_changed_is_named(change: Callable[[Path], None], says: str, folder: Path) -> None:
    change(folder)
    code, said = call("verify", folder)
    assert code == 11, said
    assert says in said


def keys(folder: Path, kind: str) -> tuple[Path, Path]:
    """A private key and its public one, as a user makes them."""
    private, public = folder / f"{kind}.pem", folder / f"{kind}.pub"
    curve = ["-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else []
    subprocess.run(["openssl", "genpkey", "-algorithm", kind, *curve, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


@pytest.fixture
def signed(finished: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A bundle, and the public key."""
    private, public = keys(tmp_path, "ed25519")
    file = tmp_path / "run.tar"
    code, said = call("export-run", finished, "-o", file, "--sign", private)
    assert (code, said) == (0, f"{file} holds 12 artifacts of r by their digests, signed.\n")
    return file, public


@pytest.mark.parametrize("kind", ["ed25519", "ec"])
def test_a_bundle_is_signed_and_verified(kind: str, finished: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, kind)
    assert call("export-run", finished, "-o", tmp_path / "run.tar", "--sign", private)[0] == 0
    code, said = call("verify", tmp_path / "run.tar", "--key", public)
    assert code == 0, said
    assert "Signed with this key." in said
    code, said = call("verify", tmp_path / "run.tar")
    assert (code, "name the public key" in said) == (0, True)


def test_the_same_run_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        assert call("export-run", finished, "-o", tmp_path / name)[0] == 0
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_the_attestation_names_the_exported_files_and_what_they_were_made_from(
    signed: tuple[Path, Path], finished: Path
) -> None:
    envelope = json.loads(contents(signed[0])["attestation.dsse.json"])
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert (statement["_type"], statement["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    digest = hashlib.sha256((finished / "export/contents.txt").read_bytes()).hexdigest()
    assert {"name": "export/contents.txt", "digest": {"sha256": digest}} in statement["subject"]
    made_from = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"model", PROMPTS, "iterations/001/policy"} <= {one["name"] for one in made_from}


def contents(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        found = {entry.name: archive.extractfile(entry) for entry in archive}
        return {name: file.read() for name, file in found.items() if file is not None}


def write(file: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(file, "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def edited(files: dict[str, bytes]) -> dict[str, bytes]:
    return {**files, "run.json": files["run.json"].replace(b'"seed": 0', b'"seed": 1')}


def indexed(files: dict[str, bytes]) -> dict[str, bytes]:
    """With an index that fits again."""
    index = json.loads(files["dynalign.json"])
    index["files"] = {name: hashlib.sha256(files[name]).hexdigest() for name in index["files"] if name in files}
    return {**files, "dynalign.json": json.dumps(index, indent=2).encode()}


def without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {other: data for other, data in files.items() if other != name}


def with_other_subject(files: dict[str, bytes]) -> dict[str, bytes]:
    envelope = json.loads(files["attestation.dsse.json"])
    payload = base64.b64decode(envelope["payload"]).replace(b"contents.txt", b"contents.bin")
    envelope["payload"] = base64.b64encode(payload).decode()
    return {**files, "attestation.dsse.json": json.dumps(envelope).encode()}


MODEL = f"artifacts/model/{MANIFEST}"
TAMPERED_BUNDLES: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "an edited run": (edited, "run.json was changed or added"),
    "an edited run and index": (lambda files: indexed(edited(files)), "that of another run"),
    "a file that is gone": (lambda files: without(files, MODEL), f"{MODEL} is missing"),
    "a file and its digest that are gone": (lambda files: indexed(without(files, MODEL)), "its manifest is missing"),
    "a file more": (lambda files: {**files, "more": b"x"}, "more was changed or added"),
    "no index": (lambda files: without(files, "dynalign.json"), "has no dynalign.json"),
    "no attestation": (lambda files: without(files, "attestation.dsse.json"), "has no attestation"),
    "an edited attestation": (with_other_subject, "not signed with this key, or was changed"),
    "no envelope": (lambda files: {**files, "attestation.dsse.json": b"[]"}, "no DSSE envelope"),
}


@pytest.mark.parametrize(("change", "says"), TAMPERED_BUNDLES.values(), ids=TAMPERED_BUNDLES)
def test_what_was_changed_in_a_bundle_is_named(
    change: Callable[[dict[str, bytes]], dict[str, bytes]], says: str, signed: tuple[Path, Path], tmp_path: Path
) -> None:
    file, public = signed
    write(file, change(contents(file)))
    code, said = call("verify", file, "--key", public)
    assert code == 11, said
    assert says in said


def test_another_key_is_refused(signed: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, other = keys(tmp_path / "other", "ed25519")
    code, said = call("verify", signed[0], "--key", other)
    assert (code, "is not signed with this key" in said) == (11, True)


@pytest.mark.parametrize(
    ("content", "says"), [(b"no archive", "is no tar archive"), (b"", "is no tar archive")], ids=["text", "empty"]
)
def test_what_is_no_bundle_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    code, said = call("verify", tmp_path / "x.tar")
    assert (code, says in said) == (11, True), said


def test_a_downloaded_model_is_compared_with_the_export(signed: tuple[Path, Path], folder: Path) -> None:
    assert call("verify", signed[0], "--model", folder / "export")[0] == 0
    (folder / "export" / "contents.txt").write_text("other weights")
    code, said = call("verify", signed[0], "--model", folder / "export")
    assert (code, "is not the file that the run exported" in said) == (11, True)
