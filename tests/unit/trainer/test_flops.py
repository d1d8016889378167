"""Operations of training, against those that PyTorch counts, and their share of a peak."""

import itertools
from typing import Any

import pytest

from dynalign_contract.accelerators import ACCELERATORS, Hardware, accelerator_of
from dynalign_contract.model_shape import shape_of
from dynalign_contract.records import BatchRow
from dynalign_contract.settings import TrainingMethod
from dynalign_trainer.train.flops import model_flops
from dynalign_trainer.train.job import StepReport
from dynalign_trainer.train.summary import utilisation

PROMPT, COMPLETION = 40, 24
SIZES = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "intermediate_size": 160,
    "vocab_size": 512,
}


def a_row(prompt_id: str, *, prompt: int = PROMPT) -> BatchRow:
    return {
        "step": 0,
        "prompt_id": prompt_id,
        "candidate": 0,
        "prompt_ids": [3] * prompt,
        "completion_ids": [4] * COMPLETION,
        "logprobs": [-1.0] * COMPLETION,
        "reward": 0.5,
        "advantage": 0.0,
        "masked": False,
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", list(TrainingMethod))
def test_a_row_takes_the_operations_that_pytorch_counts(method: TrainingMethod) -> None:
    """The products of a small adapter are the difference. A pass over one row spares no attention of a long prompt."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("qwen3", **SIZES, tie_word_embeddings=False)
    policy: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    if method is TrainingMethod.LORA:
        policy = get_peft_model(policy, LoraConfig(r=1, target_modules=["v_proj"]))
        policy.enable_input_require_grads()  # as gradient checkpointing has it
    ids = torch.tensor([[3, *[4] * COMPLETION]])
    with FlopCounterMode(display=False) as counter:
        policy(ids, logits_to_keep=COMPLETION).logits.sum().backward()
    found = model_flops(shape_of(config.to_dict()), [a_row("p0", prompt=1)], method)
    assert found == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_a_prompt_counts_once_for_its_group() -> None:
    shape = shape_of(SIZES)
    one, two, apart = (
        model_flops(shape, [a_row(prompt) for prompt in prompts], TrainingMethod.LORA)
        for prompts in (["p0"], ["p0", "p0"], ["p0", "p1"])
    )
    assert apart == 2 * one
    assert one < two < apart
    assert model_flops(shape, [], TrainingMethod.LORA) == 0


def test_a_frozen_weight_has_no_gradient_and_attention_no_weight() -> None:
    shape, row = shape_of(SIZES), [a_row("p0")]
    lora, full = (model_flops(shape, row, method) for method in (TrainingMethod.LORA, TrainingMethod.FULL))
    narrow = shape_of({**SIZES, "num_hidden_layers": 0})
    head = model_flops(narrow, row, TrainingMethod.LORA)
    assert head == 4 * narrow.vocabulary * narrow.hidden * COMPLETION
    assert 1.2 < full / lora < 1.5


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", Hardware.H100),
        ("NVIDIA H200", Hardware.H200),
        ("NVIDIA B200", Hardware.B200),
        ("NVIDIA A100-SXM4-80GB", Hardware.A100),
        ("NVIDIA L40S", Hardware.L40S),
        ("AMD Instinct MI300X", Hardware.MI300X),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("Intel CPU", None),
    ],
)
def test_a_device_is_known_by_the_name_that_its_driver_says(device: str, kind: Hardware | None) -> None:
    assert accelerator_of(device) == (None if kind is None else ACCELERATORS[kind])


def reports(*flops: float | None) -> list[StepReport]:
    numbers = itertools.count(1)
    measures: dict[str, Any] = dict.fromkeys(("loss", "kl", "entropy", "ratio_mean", "ratio_max", "clip_share"), 0.0)
    return [
        StepReport(**measures, step=next(numbers), steps=len(flops), grad_norm=None, tokens=1, seconds=2.0, flops=value)
        for value in flops
    ]


@pytest.mark.parametrize(
    ("flops", "peak", "expected"),
    [
        ((6e12, 2e12), 8e12, 0.25),
        ((6e12, None), 8e12, None),
        ((6e12, 2e12), None, None),
        ((), 8e12, None),
    ],
)
def test_utilisation_is_known_where_operations_and_peak_are(
    flops: tuple[float | None, ...], peak: float | None, expected: float | None
) -> None:
    assert utilisation(reports(*flops), peak) == expected
