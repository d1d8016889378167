"""What products are computed in, on processors with and without instructions for bfloat16."""

from typing import Final

import pytest
import torch

from dynalign_trainer.train.packed import precision

BOTH: Final = pytest.mark.parametrize("multiplies", [False, True], ids=["emulated bfloat16", "bfloat16"])


@BOTH
def test_products_with_a_large_weight_are_those_of_float64(monkeypatch: pytest.MonkeyPatch, multiplies: bool) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: multiplies)
    monkeypatch.setattr(precision, "_ROWS", 16)
    weight, inputs = torch.randn(50, 8).bfloat16(), torch.randn(5, 8).bfloat16()
    outputs = torch.randn(5, 50).bfloat16().float()
    pairs = [
        (precision.to_outputs(inputs, weight), inputs.double() @ weight.double().T),
        (precision.to_inputs(outputs, weight), outputs.double() @ weight.double()),
    ]
    limit = 0.005 if multiplies else 1e-6
    assert all(float((found - wanted).norm() / wanted.norm()) < limit for found, wanted in pairs)


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_only_bfloat16_without_instructions_is_multiplied_in_float32(
    monkeypatch: pytest.MonkeyPatch, multiplies: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: multiplies)
    changes = dtype is torch.bfloat16 and not multiplies
    assert precision.product_dtype(torch.zeros(1, dtype=dtype)) is (torch.float32 if changes else dtype)
    assert precision.product_dtype(torch.zeros(1, dtype=dtype, device="meta")) is dtype
