"""The fetch stage accepts a whole model folder and names what is wrong with any other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dynalign_contract.config import FetchParams, StageConfig
from dynalign_contract.result import StageResult
from dynalign_trainer.runtime.lifecycle import Place, run_stage
from lab.tiny_qwen3 import write_tiny_qwen3
from support.judging_data import metrics_of


@pytest.fixture
def source(tiny_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def fetch(uri: str, root: Path) -> StageResult:
    root.mkdir(exist_ok=True)
    (root / "stage.json").write_text(StageConfig(run="r", params=FetchParams(uri=uri)).to_json())
    run_stage(root / "stage.json", root, root / "result", Place())
    return StageResult.decode((root / "result").read_bytes())


def test_a_folder_is_copied_without_what_a_model_does_not_need(source: Path, tmp_path: Path) -> None:
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "modeling.py").write_text("raise SystemExit")
    result = fetch(str(source), tmp_path / "run")
    assert result.exit_code == 0, result
    names = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert {"config.json", "model.safetensors", "manifest.json"} <= names
    assert not {"pytorch_model.bin", "modeling.py"} & names
    assert (metrics_of(result)["parameters"] or 0) > 10_000


def test_a_claim_is_read_below_its_mount(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "claim").mkdir()
    source.rename(tmp_path / "claim" / "tiny")
    monkeypatch.setenv("DYNALIGN_PVC_ROOT", str(tmp_path))
    assert fetch("pvc://claim/tiny", tmp_path / "run").exit_code == 0


def test_a_hugging_face_cache_is_a_model_folder(source: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    source.rename(repository / "blobs")
    for path in (repository / "blobs").iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert fetch(str(snapshot), tmp_path / "run").exit_code == 0


def test_a_link_of_a_claim_stays_on_it(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNALIGN_PVC_ROOT", str(tmp_path))
    (tmp_path / "claim").mkdir()
    tokenizer = (source / "tokenizer.json").rename(tmp_path / "claim" / "tokenizer.json")
    source.rename(tmp_path / "claim" / "tiny")
    (tmp_path / "claim" / "tiny" / "tokenizer.json").symlink_to(tokenizer)
    assert fetch("pvc://claim/tiny", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize("uri", ["pvc://claim/tiny", "{}/claim/tiny"])
@pytest.mark.parametrize("target", ["/proc/self/environ", "/etc/passwd", "../../other/secret.txt"])
def test_a_link_that_leads_out_is_named_and_not_copied(
    uri: str, target: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNALIGN_PVC_ROOT", str(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.txt").write_text("secret")
    (tmp_path / "claim").mkdir()
    folder = source.rename(tmp_path / "claim" / "tiny")
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").symlink_to(target)
    result = fetch(uri.format(tmp_path), tmp_path / "run")
    assert result.exit_code == 11
    assert result.error is not None
    assert "tokenizer_config.json" in result.error.message
    assert "Replace the link by the file itself" in result.error.message
    assert not (tmp_path / "run" / "model" / "tokenizer_config.json").exists()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def cut_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def edit_config(**fields: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return edit


def remove_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def remove_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def promise_another_shard(folder: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut_weights, "model.safetensors is damaged or was cut short"),
        (cut_header, "model.safetensors is damaged or was cut short"),
        (empty_weights, "model.safetensors is damaged or was cut short"),
        (remove_weights, "holds no *.safetensors file"),
        (promise_another_shard, "model-00002-of-00002.safetensors, which is not there"),
        (break_config, "config.json cannot be read"),
        (edit_config(auto_map={"AutoModel": "modeling.py"}, model_type="mine"), "asks for code of its own"),
        (edit_config(architectures=["BertModel"]), "a causal language model is needed"),
        (remove_template, "has no chat template"),
        (remove_tokenizer, "has no tokenizer"),
    ],
)
def test_a_damaged_model_is_bad_input(
    damage: Callable[[Path], None], sentence: str, source: Path, tmp_path: Path
) -> None:
    damage(source)
    result = fetch(str(source), tmp_path / "run")
    assert result.exit_code == 11
    assert result.error is not None
    assert sentence in result.error.message
    assert not (tmp_path / "run" / "model" / "manifest.json").exists()


def test_what_an_earlier_attempt_copied_and_the_source_no_longer_has_is_gone(source: Path, tmp_path: Path) -> None:
    (source / "vocab.json").write_text("{}")
    break_config(source)
    assert fetch(str(source), tmp_path / "run").exit_code == 11
    (tmp_path / "run" / "model" / "special_tokens_map.json").write_text("of the earlier attempt")
    (source / "vocab.json").unlink()
    write_tiny_qwen3(source)
    result = fetch(str(source), tmp_path / "run")
    assert result.exit_code == 0, result
    names = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert not {"vocab.json", "special_tokens_map.json"} & names


def test_a_tensor_in_two_files_is_bad_input(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    files = ("model-1.safetensors", "model-2.safetensors")
    for name in files:
        save_file(tensors, source / name, metadata={"format": "pt"})
    weights = {tensor: files[number % 2] for number, tensor in enumerate(sorted(tensors))}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    result = fetch(str(source), tmp_path / "run")
    assert result.exit_code == 11
    assert result.error is not None
    assert "lies in" in result.error.message


@pytest.mark.parametrize(
    ("uri", "code", "sentence"),
    [
        ("/no/such/folder", 11, "is not a folder"),
        ("bundled://gpt-9", 10, "there is no bundled model 'gpt-9'"),
        ("ftp://somewhere/model", 10, "begins with ftp://"),
        ("pvc://claim/../../etc", 10, "without .. in it"),
    ],
)
def test_what_is_not_there_is_named(uri: str, code: int, sentence: str, tmp_path: Path) -> None:
    result = fetch(uri, tmp_path / "run")
    assert result.exit_code == code
    assert result.error is not None
    assert sentence in result.error.message
