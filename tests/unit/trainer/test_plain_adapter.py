"""An adapter holds what every stage plays, or is refused: nothing of it is dropped on the way."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.merging import check_fit, read_adapter
from dynalign_trainer.models.plain_adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_plain_adapter

Q = "base_model.model.model.layers.0.self_attn.q_proj"
PAIR = {f"{Q}.lora_A.weight": torch.ones(2, 4), f"{Q}.lora_B.weight": torch.ones(4, 2)}


def an_adapter(folder: Path, tensors: dict[str, Any] | None = None, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(plain | config))
    save_file(PAIR if tensors is None else tensors, folder / ADAPTER_WEIGHTS)
    return folder


def test_a_plain_adapter_is_read(tmp_path: Path) -> None:
    adapter = read_adapter(an_adapter(tmp_path))
    assert adapter.scale == 2.0
    assert adapter.names == {"model.layers.0.self_attn.q_proj.weight"}


def test_what_peft_writes_is_plain(tmp_path: Path) -> None:
    from peft import LoraConfig

    written = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"]).to_dict()
    check_plain_adapter(an_adapter(tmp_path, **json.loads(json.dumps(written, default=list))))


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.embed_tokens.lora_embedding_B",
        "base_model.model.model.embed_tokens.weight",
        "base_model.model.lm_head.weight",
        "base_model.model.lm_head.modules_to_save.weight",
        f"{Q}.lora_magnitude_vector",
        f"{Q}.lora_magnitude_vector.weight",
        f"{Q}.bias",
        f"{Q}.lora_B.bias",
        "base_model.model.model.layers.0.mlp.experts.lora_A.default.weight",
        "model.layers.0.self_attn.v_proj.lora_A.weight",
        "whatever",
    ],
)
def test_a_tensor_that_no_engine_plays_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = an_adapter(tmp_path, {**PAIR, name: torch.ones(2, 2)})
    for read in (read_adapter, check_plain_adapter):
        with pytest.raises(BadInputError, match=name):
            read(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("use_rslora", True),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("init_lora_weights", "pissa"),
        ("alora_invocation_tokens", [5]),
        ("rank_pattern", {"q_proj": 8}),
        ("fan_in_fan_out", True),
        ("a_field_of_a_later_peft", 3),
    ],
)
def test_a_setting_that_merging_would_pass_over_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(BadInputError, match=f"sets {field}; only plain LoRA"):
        read_adapter(an_adapter(tmp_path, **{field: value}))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [({f"{Q}.lora_A.weight": torch.ones(2, 4)}, r"lacks .*q_proj\.lora_B\.weight"), ({}, "holds no tensor")],
)
def test_half_an_adapter_is_refused(tmp_path: Path, tensors: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        read_adapter(an_adapter(tmp_path, tensors))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8])
def test_an_update_is_not_added_to_quantised_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    """0.605 of an update came out as 0.0003 of it when scales were passed over."""
    base = tmp_path / "base"
    base.mkdir()
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({name: torch.ones(4, 4).to(dtype), f"{name}_scale_inv": torch.ones(1, 1)}, base / "model.safetensors")
    with pytest.raises(BadInputError, match="the base model is quantised"):
        check_fit(read_adapter(an_adapter(tmp_path / "adapter")), base)


def test_an_adapter_of_another_model_is_refused_before_it_is_played(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    save_file({"layers.0.self_attn.q_proj.weight": torch.ones(4, 4)}, tmp_path / "base" / "model.safetensors")
    with pytest.raises(BadInputError, match=r"base model has no model\.layers\.0\.self_attn\.q_proj\.weight"):
        check_fit(read_adapter(an_adapter(tmp_path / "adapter")), tmp_path / "base")
