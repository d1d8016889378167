"""What is refused of a model folder before an engine starts."""

import json
from pathlib import Path

import pytest

from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.folder import adapter_rank, check_weights, context_window, load_tokenizer


def config(folder: Path, data: object, name: str = "config.json") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(
    ("data", "wanted", "window"),
    [
        ({"max_position_embeddings": 2048}, None, 2048),
        ({"max_position_embeddings": 131072}, None, 4096),
        ({"max_position_embeddings": 131072}, 8192, 8192),
        ({"text_config": {"max_position_embeddings": 1024}}, None, 1024),
        ({}, None, 4096),
        ({}, 100, 100),
    ],
)
def test_context_window(tmp_path: Path, data: object, wanted: int | None, window: int) -> None:
    assert context_window(config(tmp_path, data), wanted) == window


def test_a_window_beyond_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"engine\.maxLength is 4096, .* at most 2048"):
        context_window(config(tmp_path, {"max_position_embeddings": 2048}), 4096)


def test_an_unreadable_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"config\.json cannot be read"):
        context_window(tmp_path / "absent", None)
    for text in ("{", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(BadInputError, match=r"config\.json cannot be read"):
            context_window(tmp_path, None)
    with pytest.raises(BadInputError, match=r"config\.json holds no JSON object"):
        context_window(config(tmp_path, []), None)
    with pytest.raises(BadInputError, match=r"holds no \*\.safetensors"):
        check_weights(tmp_path)
    with pytest.raises(BadInputError, match=r"tokenizer in .* cannot be loaded"):
        load_tokenizer(config(tmp_path, {"model_type": "llama"}))


def test_the_rank_is_one_that_the_engine_has(tmp_path: Path) -> None:
    small = config(tmp_path / "a", {"peft_type": "LORA", "r": 4}, "adapter_config.json")
    large = config(tmp_path / "b", {"peft_type": "LORA", "r": 20}, "adapter_config.json")
    assert adapter_rank([small]) == 8
    assert adapter_rank([small, large]) == 32


@pytest.mark.parametrize("data", [{"peft_type": "IA3", "r": 4}, {"peft_type": "LORA"}, {"peft_type": "LORA", "r": 900}])
def test_other_adapters_are_refused(tmp_path: Path, data: object) -> None:
    with pytest.raises(BadInputError, match=r"adapter_config\.json describes"):
        adapter_rank([config(tmp_path, data, "adapter_config.json")])
