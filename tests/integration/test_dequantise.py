"""`model.quantized: Dequantize`: fetch leaves a model in BFloat16 whose numbers are those of the checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.settings import Quantized
from dynalign_trainer.models.files import read_tensor_files
from dynalign_trainer.runtime import memory
from lab.tiny_qwen3 import write_tiny_qwen3
from support.memory_limits import control_group
from support.odd_models import Change, as_fp8, as_gptq, set_json, store_as
from support.preflight_runs import a_preflight, fetch, refusal
from support.quantised_models import CHECKPOINTS, Checkpoint, Tensors, compressed_tensors

by_name = pytest.mark.parametrize("checkpoint", CHECKPOINTS.values(), ids=CHECKPOINTS)


def dequantise(model: Path, root: Path) -> StageResult:
    return fetch(model, a_preflight(), root, quantized=Quantized.DEQUANTIZE)


def fetched(checkpoint: Checkpoint, tmp_path: Path) -> tuple[Path, Path, Tensors]:
    """Folders of source and copy, and what the copy should hold."""
    source, meant = checkpoint.write(tmp_path / "source")
    result = dequantise(source, tmp_path / "root")
    assert result.outcome is Outcome.SUCCEEDED, result.error
    return source, tmp_path / "root" / "model", meant


@by_name
def test_the_copy_holds_the_numbers_of_the_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Each weight is the number of BFloat16 that is nearest to the product of its number and its scale."""
    _, copy, meant = fetched(checkpoint, tmp_path)
    found = load_file(copy / "model.safetensors")
    assert found.keys() == meant.keys()
    for name, weight in found.items():
        assert weight.dtype is torch.bfloat16, name
        torch.testing.assert_close({name: weight.double()}, {name: meant[name]}, rtol=2**-8, atol=0)


@by_name
def test_all_but_the_weights_is_kept_and_nothing_speaks_of_quantisation(checkpoint: Checkpoint, tmp_path: Path) -> None:
    source, copy, _ = fetched(checkpoint, tmp_path)
    config, before = (json.loads((folder / "config.json").read_text()) for folder in (copy, source))
    del before["quantization_config"]
    assert config == before | {"dtype": "bfloat16"}
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (copy / name).read_bytes() == (source / name).read_bytes()
    assert json.loads((copy / "source.json").read_text()) == {
        "uri": str(source),
        "quantized": checkpoint.quantiser.method,
    }
    listed = {file["name"] for file in json.loads((copy / "manifest.json").read_text())["files"]}
    assert {path.name for path in copy.iterdir()} == listed | {"manifest.json"}
    assert "quant_config.json" not in listed


def transformers_own(name: str, folder: Path) -> Any:
    """The model as transformers itself dequantises it."""
    import transformers

    config = {
        "mxfp4": transformers.Mxfp4Config,
        "fp8": transformers.FineGrainedFP8Config,
        "compressed-tensors": transformers.CompressedTensorsConfig,
    }[name](dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=config, local_files_only=True
    ).eval()


@pytest.mark.parametrize(
    "name",
    ["mxfp4", "fp8-blocks", "fp8-tensor", "compressed-fp8-rows", "compressed-int8-rows", "compressed-int4-packed"],
)
def test_the_copy_is_what_transformers_loads_from_the_checkpoint(name: str, tmp_path: Path) -> None:
    """Exactly, where transformers converts the format as it is defined.

    The logits are those of weights that are converted and of activations as they are: where compressed-tensors
    quantises activations too, transformers goes on to do so.
    """
    import transformers

    source, copy, _ = fetched(CHECKPOINTS[name], tmp_path)
    theirs = transformers_own(CHECKPOINTS[name].quantiser.method, source)
    ours = transformers.AutoModelForCausalLM.from_pretrained(copy, dtype=torch.bfloat16, local_files_only=True).eval()
    expected = dict(theirs.named_parameters())
    for of, parameter in ours.named_parameters():
        assert torch.equal(parameter, expected[of]), of
    if name in ("compressed-fp8-rows", "compressed-int8-rows"):
        return
    with torch.inference_mode():
        tokens = torch.arange(3, 40)[None]
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


def test_weights_of_several_files_become_files_that_an_index_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynalign_trainer.fetch.dequantising.SHARD_BYTES", 100_000)
    _, copy, meant = fetched(CHECKPOINTS["fp8-blocks"], tmp_path)
    places = read_tensor_files(copy)
    names = sorted({path.name for path in places.values()})
    assert len(names) > 2
    assert names == [f"model-{i:05d}-of-{len(names):05d}.safetensors" for i in range(1, len(names) + 1)]
    assert places.keys() == meant.keys()


def test_a_model_that_is_not_quantised_stays_as_it_is(tmp_path: Path) -> None:
    source = write_tiny_qwen3(tmp_path / "source")
    result = dequantise(source, tmp_path / "root")
    assert result.outcome is Outcome.SUCCEEDED, result.error
    assert [note for note in result.warnings if "the weights are not quantised" in note]
    copy = tmp_path / "root" / "model"
    for path in source.iterdir():
        assert (copy / path.name).read_bytes() == path.read_bytes()


def test_a_finished_copy_is_used_again(tmp_path: Path) -> None:
    source, _ = CHECKPOINTS["fp8-blocks"].write(tmp_path / "source")
    first = dequantise(source, tmp_path / "root")
    again = dequantise(source, tmp_path / "root")
    assert (first.outcome, again.outcome) == (Outcome.SUCCEEDED, Outcome.SKIPPED)
    assert again.artifact == first.artifact
    assert again.training == first.training is not None


def without_scales(name: str, tensor: torch.Tensor) -> Tensors:
    return {key: value for key, value in as_fp8(name, tensor).items() if key == name}


def says(**settings: Any) -> Change:
    return set_json("config.json", quantization_config=settings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param([says(quant_method="gptq", bits=4), store_as(as_gptq)], ["(gptq)"], id="gptq"),
        pytest.param([says(quant_method="bitsandbytes", load_in_4bit=True)], ["(bitsandbytes)"], id="bitsandbytes"),
        pytest.param([says(quant_method="modelopt", quant_algo="NVFP4")], ["(modelopt)"], id="modelopt"),
        pytest.param([set_json("hf_quant_config.json", quantization={})], ["hf_quant_config.json"], id="modelopt-file"),
        pytest.param([set_json("quantize_config.json", bits=4)], ["quantize_config.json"], id="gptq-file"),
        pytest.param([says(quant_method="mxfp8")], ["(mxfp8)"], id="mxfp8"),
        pytest.param([says(quant_method="a-new-one")], ["(a-new-one)"], id="unknown"),
        pytest.param(
            [says(quant_method="awq", bits=8)], ["(awq with bits 8, version gemm, group_size 128)"], id="awq-bits"
        ),
        pytest.param([says(quant_method="awq", version="gemv")], ["version gemv"], id="awq-version"),
        pytest.param(
            [says(quant_method="fp8", weight_block_size=[128])], ["weight_block_size [128]"], id="fp8-blocks-of-a-line"
        ),
        pytest.param(
            [says(**compressed_tensors("float", 4, "tensor_group", "nvfp4-pack-quantized"))],
            ["compressed-tensors with format nvfp4-pack-quantized"],
            id="compressed-nvfp4",
        ),
        pytest.param(
            [
                says(
                    **compressed_tensors("int", 8, "channel", "int-quantized"),
                    sparsity_config={"format": "sparse-24-bitmask"},
                )
            ],
            ["sparsity_config of the format sparse-24-bitmask"],
            id="compressed-sparse",
        ),
        pytest.param(
            [says(**compressed_tensors("int", 8, "channel", "int-quantized"), transform_config={"r1": {}})],
            ["transform_config"],
            id="compressed-rotated",
        ),
        pytest.param([store_as(as_fp8)], ["as F8_E4M3", "as config.json describes them"], id="fp8-without-settings"),
        pytest.param([says(quant_method="awq"), store_as(as_fp8)], ["as F8_E4M3"], id="fp8-with-settings-of-awq"),
        pytest.param([says(quant_method="fp8"), store_as(without_scales)], ["as F8_E4M3"], id="fp8-without-scales"),
    ],
)
def test_what_cannot_be_converted_is_refused_before_the_weights_come(
    changes: list[Change], words: list[str], tmp_path: Path
) -> None:
    source = write_tiny_qwen3(tmp_path / "source")
    for change in changes:
        change(source)
    message = refusal(dequantise(source, tmp_path / "root"), tmp_path / "root")
    for word in ["the weights are quantised", "Dequantize converts mxfp4, fp8", "Name the model in BFloat16", *words]:
        assert word in message
    assert not list((tmp_path / "root").rglob("*.safetensors"))


@pytest.mark.parametrize("name", ["fp8-blocks-at-edges", "awq"])
def test_tensors_that_do_not_fit_together_are_named(name: str, tmp_path: Path) -> None:
    source, _ = CHECKPOINTS[name].write(tmp_path / "source")
    store_as(cut_scales)(source)
    message = refusal(dequantise(source, tmp_path / "root"), tmp_path / "root")
    assert "layers.0.mlp.down_proj" in message
    assert "cannot be converted to BFloat16" in message
    assert "scale" in message


def cut_scales(name: str, tensor: torch.Tensor) -> Tensors:
    """The scales without their last row."""
    is_scale = name.endswith(("_scale_inv", ".scales"))
    return {name: tensor[:-1].contiguous() if is_scale and len(tensor) > 1 else tensor}


def test_a_stage_with_little_memory_is_told_before_the_weights_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text("1073741824")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", (control_group(tmp_path),))
    source, _ = CHECKPOINTS["mxfp4"].write(tmp_path / "source")
    result = dequantise(source, tmp_path / "root")
    message = refusal(result, tmp_path / "root")
    assert (result.exit_code, result.error and result.error.reason) == (10, "OutOfMemory")
    assert "has 1.0 GiB" in message
    assert "spec.stages.fetch.resources.limits to 3Gi" in message
    assert not list((tmp_path / "root").rglob("*.safetensors"))
