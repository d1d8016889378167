"""Which files are a model, whoever asks: folders as people save them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.files import read_model_files, read_tensor_files

ONE = {"config.json": "{}", "model.safetensors": {"a": 1}}
SHARDS = {
    "config.json": "{}",
    "model.safetensors.index.json": '{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}',
    "m-1.safetensors": {"a": 1},
    "m-2.safetensors": {"b": 1},
}


def a_folder(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            save_file({tensor: torch.zeros(size) for tensor, size in content.items()}, path)
        else:
            path.write_text(str(content))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *(
            "vocab.json",
            "merges.txt",
            "vocab.txt",
            "tokenizer.model",
            "spiece.model",
            "tiktoken.model",
            "qwen.tiktoken",
        ),
        *("chat_template.jinja", "chat_template.json", "additional_chat_templates/tools.jinja"),
    ],
)
def test_a_tokenizer_is_all_that_its_class_may_read(tmp_path: Path, name: str) -> None:
    assert read_model_files(a_folder(tmp_path, {**ONE, name: "{}"})).tokenizer == (name,)


@pytest.mark.parametrize(
    "name",
    [
        *("pytorch_model.bin", "model.gguf", "model.onnx", "original/params.json", "original/consolidated.safetensors"),
        *("consolidated.safetensors", "params.json", "model-00001-of-00002.safetensors", "optimizer.safetensors"),
        *("trainer_state.json", "training_args.bin", "pytorch_model.bin.index.json", "modeling_own.py", "README.md"),
        *("manifest.json", "source.json", "LICENSE.txt", "all_results.json"),
    ],
)
def test_what_is_no_part_of_a_model_is_left(tmp_path: Path, name: str) -> None:
    files = read_model_files(a_folder(tmp_path, {**ONE, name: {"a": 1} if name.endswith("safetensors") else "{}"}))
    assert files.all == ("config.json", "model.safetensors")
    assert files.left == (() if "/" in name else (name,))


def test_an_index_says_which_files_are_the_weights(tmp_path: Path) -> None:
    files = read_model_files(a_folder(tmp_path, {**SHARDS, "m-3.safetensors": {"c": 1}}))
    assert files.weights == ("m-1.safetensors", "m-2.safetensors")
    assert files.metadata == ("config.json", "model.safetensors.index.json")
    assert files.left == ("m-3.safetensors",)
    assert {name: path.name for name, path in read_tensor_files(tmp_path).items()} == {
        "a": "m-1.safetensors",
        "b": "m-2.safetensors",
    }


def index(**weights: str) -> dict[str, object]:
    return {"model.safetensors.index.json": json.dumps({"weight_map": weights})}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": "{}", "pytorch_model.bin": ""}, r"no \*\.safetensors file\. It has pytorch_model\.bin"),
        ({"m-1.safetensors": {"a": 1}}, r"neither model\.safetensors nor .*it has m-1\.safetensors"),
        ({"consolidated.safetensors": {"a": 1}}, r"it has consolidated\.safetensors.*save_pretrained"),
        ({**SHARDS, "model.safetensors": {"a": 1}}, "has both model.safetensors and"),
        ({**ONE, **index(a="m-1.safetensors")}, r"m-1\.safetensors, which is not there.*remove the index"),
        ({**SHARDS, **index(a="m-9.safetensors")}, r"names m-9\.safetensors, which is not there"),
        ({**SHARDS, **index(a="../m-1.safetensors")}, "must be a safetensors file in the same folder"),
        ({**SHARDS, **index(a="m-1.bin")}, "must be a safetensors file in the same folder"),
        ({**SHARDS, **index()}, "empty weight_map"),
        ({**SHARDS, "model.safetensors.index.json": "[]"}, "is not the index"),
        ({**SHARDS, "model.safetensors.index.json": "{"}, "is not the index"),
        ({**ONE, "adapter_config.json": "{}"}, r"adapter beside whole weights \(adapter_config\.json\).*merge_and_unload"),
        ({**SHARDS, "adapter_model.safetensors": {"x": 1}}, r"beside whole weights \(adapter_model\.safetensors\)"),
        ({"adapter_model.safetensors": {"x": 1}, "adapter_config.json": "{}"}, "and no whole model"),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_say_what_the_weights_are_is_refused(
    tmp_path: Path, files: dict[str, object], said: str
) -> None:
    with pytest.raises(BadInputError, match=said):
        read_model_files(a_folder(tmp_path, files))


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    a_folder(tmp_path, {**SHARDS, "m-2.safetensors": {"a": 1, "b": 1}})
    with pytest.raises(BadInputError, match=r"tensor a lies in .*m-1\.safetensors and in m-2\.safetensors"):
        read_tensor_files(tmp_path)
