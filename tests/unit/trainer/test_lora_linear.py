"""The Packed backend's linear layers with an adapter against PEFT's own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from dynalign_contract.settings import LoraSettings, TrainingSettings
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.packed.lora_linear import AdaptedLinear
from dynalign_trainer.train.policy.lora import adapter_state, load_adapter_policy, write_adapter
from support.tiny_models import QWEN2

INPUTS, OUTPUTS, RANK = 12, 20, 3


def a_layer(linear: type | None, dtype: torch.dtype, *, bias: bool = True, dropout: float = 0.0) -> Any:
    """The same layer with the same adapter, by PEFT's class or another one."""
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=5, lora_dropout=dropout, target_modules=["0"], init_lora_weights=False)
    if linear is not None:
        config._register_custom_module({nn.Linear: linear})
    model = get_peft_model(nn.Sequential(nn.Linear(INPUTS, OUTPUTS, bias=bias)), config).to(dtype)
    return model.base_model.model[0]


def passed(layer: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Outputs, and the gradients for the inputs and the adapter."""
    inputs = x.clone().requires_grad_()
    y = layer(inputs)
    torch.manual_seed(2)
    outer = torch.randn(y.shape).to(y.dtype)
    trained = [inputs, *(p for p in layer.parameters() if p.requires_grad)]
    return [y.detach(), *torch.autograd.grad(y, trained, outer, allow_unused=True, materialize_grads=True)]


def some_inputs(*shape: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(*shape, INPUTS, dtype=torch.float64)


def farthest(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest relative distance of any pair."""
    assert [t.shape for t in found] == [t.shape for t in wanted]
    pairs = zip(found, wanted, strict=True)
    return max(float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-9)) for a, b in pairs)


@pytest.mark.parametrize("shape", [(7,), (1, 7), (2, 3, 4)])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_gradients_are_those_of_peft(shape: tuple[int, ...], bias: bool) -> None:
    layer, peft = (a_layer(linear, torch.float64, bias=bias) for linear in (AdaptedLinear, None))
    assert type(layer) is AdaptedLinear
    x = some_inputs(*shape)
    assert farthest(passed(layer, x), passed(peft, x)) < 1e-12


def test_in_bfloat16_it_is_nearer_to_float64_than_peft() -> None:
    x = some_inputs(200).bfloat16()
    ours, peft = (a_layer(linear, torch.bfloat16) for linear in (AdaptedLinear, None))
    found = passed(ours, x)
    assert {tensor.dtype for tensor in found} == {torch.bfloat16}
    exact = a_layer(None, torch.float64)
    exact.load_state_dict(ours.state_dict())
    wanted = passed(exact, x.double())
    assert farthest(found, wanted) < 0.004  # that of rounding the results once
    assert farthest(found, wanted) < farthest(passed(peft, x), wanted)


def test_a_layer_whose_inputs_need_no_gradient_gives_none() -> None:
    layer, x = a_layer(AdaptedLinear, torch.float32), some_inputs(7).float()
    layer(x).sum().backward()
    assert x.grad is None
    assert all(p.grad is not None for p in layer.parameters() if p.requires_grad)


def test_an_adapter_that_is_switched_off_is_not_there() -> None:
    layer, x = a_layer(AdaptedLinear, torch.float64), some_inputs(7)
    layer.enable_adapters(enabled=False)
    assert torch.allclose(layer(x), layer.base_layer(x), rtol=1e-12)
    assert not torch.allclose(layer(x), a_layer(None, torch.float64)(x))


def test_what_it_does_not_know_goes_to_peft() -> None:
    x = some_inputs(50)
    layer, peft = (a_layer(linear, torch.float64, dropout=0.5) for linear in (AdaptedLinear, None))
    torch.manual_seed(3)
    wanted = peft(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), wanted)
    layer.eval()
    whole = layer(x)
    assert not torch.allclose(whole, wanted)
    layer.merge()
    assert torch.allclose(layer(x), whole, rtol=1e-12)


def a_job(model: Path, start: Path | None = None) -> TrainJob:
    training = TrainingSettings(lora=LoraSettings(rank=4, alpha=8, target_modules=("q_proj", "down_proj")))
    paths = {"model": model, "start": start, "batch": model, "work": model, "output": model}
    numbers = {"temperature": 1.0, "max_tokens": 8, "group_size": 2, "iteration": 0, "seed": 0}
    return TrainJob(training=training, config_digest="", **paths, **numbers)


def test_a_fresh_and_a_stored_adapter_get_the_layers_and_are_written_as_pefts(tmp_path: Path) -> None:
    QWEN2.build().save_pretrained(tmp_path)
    fresh, peft = (load_adapter_policy(a_job(tmp_path), linear=linear) for linear in (AdaptedLinear, None))
    assert [type(m) for m in fresh.modules()].count(AdaptedLinear) == 4
    for name, policy in (("ours", fresh), ("peft", peft)):
        write_adapter(tmp_path / name, policy, adapter_state(policy))
    written = {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()}
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "peft").iterdir()}
    stored = load_adapter_policy(a_job(tmp_path, tmp_path / "ours"), linear=AdaptedLinear)
    assert [type(m) for m in stored.modules()].count(AdaptedLinear) == 4
    assert all(p.requires_grad == ("lora_" in name) for name, p in stored.named_parameters())
