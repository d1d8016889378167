"""The fetch stage against a hub: pinned to a commit, resumed where it was cut, and every refusal in one sentence."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from dynalign_contract.config import FetchParams, StageConfig
from dynalign_contract.result import StageResult
from dynalign_contract.settings import Quantized
from dynalign_trainer.preflight.headers import read_header
from lab.tiny_qwen3 import write_tiny_qwen3
from support.hub_server import Hub, commit_id
from support.quantised_models import CHECKPOINTS

pytestmark = pytest.mark.slow

URI = "hf://org/tiny"
TOKEN = "a-token"  # noqa: S105 - of a hub that lives for one test
CHUNK = 10 << 20
"""What huggingface_hub writes to its file at once; less than this is lost with a connection."""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen3(tmp_path_factory.mktemp("hub") / "tiny")


@pytest.fixture
def repository(tiny: Path, tmp_path: Path) -> Path:
    """The files of the repository, 20 MiB of weights among them, and some that no model needs."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tiny / "model.safetensors")
    save_file({**tensors, "padding": numpy.zeros(5 << 20, numpy.float32)}, folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "consolidated.safetensors").write_bytes(b"the same again")
    (folder / "modeling.py").write_text("raise SystemExit")
    return folder


def fetch(
    hub: Hub, root: Path, *, uri: str = URI, token: str | None = None, quantized: Quantized = Quantized.REFUSE
) -> StageResult:
    """Run the stage as its own process: huggingface_hub reads its address when it is imported."""
    root.mkdir(exist_ok=True)
    (root / "stage.json").write_text(StageConfig(run="r", params=FetchParams(uri=uri, quantized=quantized)).to_json())
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment = inherited | {"HF_ENDPOINT": hub.url, "HF_HOME": str(root / "home")}
    if token is not None:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-m", "dynalign_trainer.main"]
    files = ["--config", root / "stage.json", "--root", root, "--result", root / "result"]
    subprocess.run([*command, *map(str, files)], env=environment, check=False, capture_output=True)
    return StageResult.decode((root / "result").read_bytes())


def message(result: StageResult) -> str:
    assert result.error is not None, result
    return result.error.message


def test_a_cut_download_goes_on_within_the_file(repository: Path, tmp_path: Path) -> None:
    with Hub("org/tiny", repository, cut_once_at=CHUNK + 1000, token=TOKEN) as hub:
        result = fetch(hub, tmp_path / "run", token=TOKEN)
    assert result.exit_code == 0, result
    assert hub.ranges == [f"bytes={CHUNK}-"]
    model = tmp_path / "run" / "model"
    assert (model / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()
    assert json.loads((model / "source.json").read_text()) == {"uri": URI, "commit": hub.commit}
    names = {path.name for path in model.iterdir()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "source.json"} <= names
    assert not {"pytorch_model.bin", "modeling.py", "consolidated.safetensors", ".cache"} & names


def test_a_failed_download_goes_on_with_the_commit_it_began_with(repository: Path, tmp_path: Path) -> None:
    with Hub("org/tiny", repository, broken=True) as hub:
        failed = fetch(hub, tmp_path / "run")
        assert (failed.exit_code, failed.error and failed.error.reason) == (1, "HubUnreachable")
        first, hub.broken, hub.commit = hub.commit, False, commit_id("second")
        hub.sent.clear()
        assert fetch(hub, tmp_path / "run").exit_code == 0
        assert hub.commits == {first}
        assert hub.sent == ["model.safetensors"]
    assert json.loads((tmp_path / "run/model/source.json").read_text())["commit"] == first


@dataclass(frozen=True)
class Refusal:
    """A question, a hub's answer to it, and what the stage must make of it."""

    sentence: str
    code: int = 11
    uri: str = URI
    error: tuple[int, str] | None = None


REFUSALS = [
    Refusal("the hub shows no model 'org/other' to you", uri="hf://org/other"),
    Refusal("org/tiny has no revision 'v2'", uri=f"{URI}@v2"),
    Refusal("spec.model.tokenSecretRef", error=(401, "RepoNotFound")),
    Refusal("Accept its terms there", error=(403, "GatedRepo")),
    Refusal("The next attempt goes on where this one stopped", code=1, error=(500, "")),
    Refusal("write hf://org/name", code=10, uri="hf://no slash"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.sentence)
def test_a_refusal_says_what_to_do(refusal: Refusal, repository: Path, tmp_path: Path) -> None:
    with Hub("org/tiny", repository, error=refusal.error) as hub:
        result = fetch(hub, tmp_path / "run", uri=refusal.uri)
    assert result.exit_code == refusal.code, result
    assert refusal.sentence in message(result)


def test_a_hub_that_is_not_there_is_worth_another_attempt(repository: Path, tmp_path: Path) -> None:
    with Hub("org/tiny", repository) as hub:
        pass
    result = fetch(hub, tmp_path / "run")
    assert (result.exit_code, result.error and result.error.reason) == (1, "HubUnreachable")


def test_other_weight_formats_are_refused(repository: Path, tmp_path: Path) -> None:
    for path in repository.glob("*.safetensors"):
        path.unlink()
    with Hub("org/tiny", repository) as hub:
        result = fetch(hub, tmp_path / "run")
    assert (result.exit_code, hub.sent) == (11, [])
    assert "spec.model.uri: hf://org/tiny holds no *.safetensors file. It has pytorch_model.bin" in message(result)


def test_a_model_with_code_of_its_own_is_refused_before_its_weights_are_fetched(
    repository: Path, tmp_path: Path
) -> None:
    path = repository / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"model_type": "mine", "auto_map": {"AutoModel": "modeling.Tiny"}})
    )
    with Hub("org/tiny", repository) as hub:
        result = fetch(hub, tmp_path / "run")
    assert result.exit_code == 11
    assert "asks for code of its own" in message(result)
    assert "model.safetensors" not in hub.sent


def test_a_quantised_model_is_refused_before_its_weights_are_fetched(tmp_path: Path) -> None:
    folder, _ = CHECKPOINTS["mxfp4"].write(tmp_path / "repository")
    with Hub("org/tiny", folder) as hub:
        result = fetch(hub, tmp_path / "run")
    assert result.exit_code == 11
    assert "Write spec.model.quantized: Dequantize to have fetch convert them to BFloat16" in message(result)
    assert "model.safetensors" not in hub.sent


def test_a_quantised_model_is_converted_and_its_commit_and_method_are_recorded(tmp_path: Path) -> None:
    folder, meant = CHECKPOINTS["mxfp4"].write(tmp_path / "repository")
    with Hub("org/tiny", folder, broken=True) as hub:
        assert fetch(hub, tmp_path / "run", quantized=Quantized.DEQUANTIZE).exit_code == 1
        hub.broken = False
        hub.sent.clear()
        result = fetch(hub, tmp_path / "run", quantized=Quantized.DEQUANTIZE)
    assert result.exit_code == 0, result
    assert hub.sent == ["model.safetensors"]
    model = tmp_path / "run" / "model"
    assert load_header(model / "model.safetensors") == dict.fromkeys(meant, "BF16")
    assert json.loads((model / "source.json").read_text()) == {"uri": URI, "commit": hub.commit, "quantized": "mxfp4"}
    assert not [path for path in model.iterdir() if path.is_dir()]


def load_header(path: Path) -> dict[str, str]:
    """Name of each tensor -> its number format."""
    return {name: tensor.format for name, tensor in read_header(path).items()}
