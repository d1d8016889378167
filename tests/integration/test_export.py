"""An exported folder loads in transformers and computes what base and adapter compute together."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dynalign_contract.config import ExportParams, IterationSummary, Policy, StageConfig
from dynalign_contract.estimate import Estimate
from dynalign_contract.layout import MANIFEST
from dynalign_contract.objective import builtin_objective
from dynalign_contract.result import StageResult
from dynalign_contract.settings import TrainingBackend
from dynalign_contract.training_choice import TrainingChoice
from dynalign_trainer.export.check import ExportError, check_export
from dynalign_trainer.runtime.lifecycle import Place, run_stage
from lab.tiny_qwen3 import write_tiny_qwen3
from support.artifacts import as_artifact
from support.judging_data import metrics_of

IDS = torch.tensor([[1, 20, 30, 40, 50]])


def load(folder: Path, dtype: torch.dtype | str = torch.float32) -> Any:
    """The model. Its library takes seconds to import, as peft does: only workers that run these tests import it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def load_adapted(folder: Path, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(load(folder), str(adapter)).eval()


def load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def export(root: Path, policy_folder: str | None, *, trained: bool | None = None) -> StageResult:
    """Export the policy in this folder, None: the base model. `trained`: iterations were run; default: there is one."""
    policy = Policy(version="iteration-000", adapter=as_artifact(root, policy_folder)) if policy_folder else Policy()
    inputs = {"model": as_artifact(root, "model")}
    if policy.adapter is not None:
        inputs[policy.version] = policy.adapter
    params = ExportParams(
        policy=policy,
        model_uri="/m",
        objective=builtin_objective("collective-agency"),
        training=TrainingChoice(
            backend=TrainingBackend.TRL,
            backend_reason="Packed does not compute layers of type linear_attention of M",
            target_modules=("q_proj", "down_proj"),
        ),
        iterations=(IterationSummary(index=0, reward=0.5, win_rate=Estimate(value=0.625, low=0.5, high=0.75)),)
        if (policy_folder is not None if trained is None else trained)
        else (),
    )
    (root / "stage.json").write_text(StageConfig(run="tiny", inputs=inputs, params=params).to_json())
    run_stage(root / "stage.json", root, root / "result", Place())
    return StageResult.decode((root / "result").read_bytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    write_tiny_qwen3(tmp_path / "model")
    torch.manual_seed(1)
    model = get_peft_model(load(tmp_path / "model"), LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path


def test_the_merged_model_is_the_base_with_its_adapter(root: Path) -> None:
    result = export(root, "adapter")
    assert result.exit_code == 0, result
    with torch.no_grad():
        unaligned = load(root / "model")(IDS).logits
        expected = load_adapted(root / "model", root / "adapter")(IDS).logits
        actual = load(root / "export")(IDS).logits
    assert torch.allclose(actual, expected, atol=1e-4)
    assert not torch.allclose(actual, unaligned, atol=1e-2)
    assert load_tokenizer(root / "export").chat_template
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (root / "export").iterdir())
    card = (root / "export" / "README.md").read_text()
    assert "| 0 | 0.500 | 0.625 (0.500 to 0.750) |" in card
    assert "**Benevolence**" in card
    assert "- Training: backend TRL (Auto: Packed does not compute layers of type linear_attention of M)\n" in card
    assert "- Training: adapter on q_proj, down_proj\n" in card
    for path in (root / "export").glob("*.json"):
        assert str(root) not in path.read_text()


@pytest.mark.parametrize(
    ("dtype", "scale", "least", "greatest"),
    [
        pytest.param(torch.float32, 1.0, 0.0, 1e-6, id="float32 holds the change"),
        pytest.param(torch.bfloat16, 1.0, 1e-4, 0.1, id="bfloat16 holds a large change"),
        pytest.param(torch.bfloat16, 1e-6, 0.9, 1.1, id="bfloat16 loses a small change"),
    ],
)
def test_what_rounding_loses_of_the_training_is_measured(
    root: Path, dtype: torch.dtype, scale: float, least: float, greatest: float
) -> None:
    load(root / "model", dtype).save_pretrained(root / "model")
    weights = root / "adapter" / "adapter_model.safetensors"
    save_file({name: w * scale if "lora_B" in name else w for name, w in load_file(weights).items()}, weights)
    result = export(root, "adapter")
    assert result.exit_code == 0, result
    error = metrics_of(result)["rounding_error"]
    assert error is not None
    assert least <= error <= greatest
    assert [("number format" in warning) for warning in result.warnings] == ([True] if least > 0.5 else [])


def test_without_an_adapter_the_base_model_is_exported(root: Path) -> None:
    result = export(root, None)
    assert {m.name: m.value for m in result.metrics}["relative_change"] == 0
    assert "No iteration was run" in (root / "export" / "README.md").read_text()
    with torch.no_grad():
        assert torch.equal(load(root / "export")(IDS).logits, load(root / "model")(IDS).logits)


def test_the_card_of_a_base_model_that_no_iteration_has_bettered_says_so(root: Path) -> None:
    export(root, None, trained=True)
    card = (root / "export" / "README.md").read_text()
    assert "The base model as it was" in card
    assert "- Training" not in card
    assert "| 0 | 0.500 | 0.625 (0.500 to 0.750) |" in card


def test_a_damaged_adapter_is_bad_input(root: Path) -> None:
    (root / "adapter" / "adapter_model.safetensors").write_bytes(b"no weights")
    result = export(root, "adapter")
    assert result.exit_code == 11
    assert result.error is not None
    assert "cannot be read" in result.error.message


def test_whole_weights_are_exported_in_the_base_models_number_format(root: Path) -> None:
    write_tiny_qwen3(root / "whole", seed=3)
    load(root / "whole").save_pretrained(root / "whole")
    result = export(root, "whole")
    assert result.exit_code == 0, result
    assert (metrics_of(result)["relative_change"] or 0) > 0.5
    assert load(root / "export", "auto").dtype == load(root / "model", "auto").dtype
    with torch.no_grad():
        assert torch.allclose(load(root / "export")(IDS).logits, load(root / "whole")(IDS).logits, atol=2e-2)


def test_a_tokenizer_of_old_files_is_exported_as_it_was(root: Path) -> None:
    """`vocab.json`, `merges.txt`, `added_tokens.json`, and a template in a file of its own."""
    keep_old_tokenizer_files(root / "model")
    before = {path.name: path.read_bytes() for path in (root / "model").iterdir()}
    result = export(root, "adapter")
    assert result.exit_code == 0, result
    exported, base = (load_tokenizer(root / name) for name in ("export", "model"))
    text = "<|im_start|>hi<|im_end|>"
    assert exported.encode(text) == base.encode(text)
    assert len(exported.encode(text)) == 4
    assert (len(exported), exported.eos_token_id) == (len(base), base.eos_token_id)
    kept = {name for name in before if name not in ("model.safetensors", MANIFEST)}
    assert {name: (root / "export" / name).read_bytes() for name in kept} == {name: before[name] for name in kept}


def test_a_model_in_several_files_keeps_its_files_its_index_and_its_templates(root: Path) -> None:
    model = root / "model"
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, model / file, metadata={"format": "pt"})
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, **index}))
    (model / "model.safetensors").unlink()
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    result = export(root, "adapter")
    assert result.exit_code == 0, result
    written = {p.relative_to(root / "export").as_posix() for p in (root / "export").rglob("*") if p.is_file()}
    base = {p.relative_to(model).as_posix() for p in model.rglob("*") if p.is_file()}
    assert written - base == {"README.md"}
    assert base <= written
    with torch.no_grad():
        expected = load_adapted(model, root / "adapter")(IDS).logits
        assert torch.allclose(load(root / "export")(IDS).logits, expected, atol=1e-4)


def keep_old_tokenizer_files(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    (folder / "tokenizer.json").unlink()
    vocabulary = {token: number for token, number in tokenizer["model"]["vocab"].items() if token not in special}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "added_tokens.json").write_text(json.dumps(special))
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **names}))


def drop_tokens(folder: Path) -> None:
    (folder / "added_tokens.json").unlink()


def swap_eos(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"eos_token": "<|im_end|>"', '"eos_token": "<|endoftext|>"'))


def cut_embedding(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:-1].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_tokens, "the number of its tokens"),
        (swap_eos, "its eos_token_id"),
        (cut_embedding, r"the shape of model\.embed_tokens\.weight"),
        (drop_tensor, "the names of its tensors"),
    ],
)
def test_an_export_that_is_not_the_base_model_otherwise_is_no_success(
    root: Path, damage: Callable[[Path], None], said: str
) -> None:
    keep_old_tokenizer_files(root / "model")
    shutil.copytree(root / "model", root / "other")
    check_export(root / "model", root / "other")
    damage(root / "other")
    with pytest.raises(ExportError, match=said):
        check_export(root / "model", root / "other")


def test_an_adapter_that_fits_in_part_only_is_bad_input(root: Path) -> None:
    path = root / "adapter" / "adapter_model.safetensors"
    tensors = {name.replace("layers.1.mlp", "layers.7.mlp"): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    result = export(root, "adapter")
    assert result.exit_code == 11
    assert result.error is not None
    assert "the base model has no model.layers.7.mlp.down_proj.weight" in result.error.message


def test_whole_weights_of_another_model_are_bad_input(root: Path) -> None:
    write_tiny_qwen3(root / "whole", head_dim=64)
    result = export(root, "whole")
    assert result.exit_code == 11
    assert result.error is not None
    assert "do not fit the base model" in result.error.message
