"""Passes of real models on a GPU that is not there: tensors with shapes and types, without values."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from support.real_models import real_config


def on_meta(name: str) -> Any:
    """A real model on the meta device, as fetch and training look at it first."""
    import torch
    from transformers import AutoModelForCausalLM

    from dynalign_trainer.train.packed.attention import IMPLEMENTATION

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            real_config(name), dtype=torch.bfloat16, attn_implementation=IMPLEMENTATION
        )


@contextmanager
def on_cuda(model: Any) -> Iterator[Any]:
    """Tensors have a shape, a type and the device `cuda`, and no memory, those of the model too."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        placed = {
            id(value): torch.empty_like(value, device="cuda") for value in (*model.parameters(), *model.buffers())
        }
        for module in model.modules():
            for name, old in module.named_parameters(recurse=False):
                setattr(module, name, torch.nn.Parameter(placed[id(old)], requires_grad=old.requires_grad))
            for name, old in module.named_buffers(recurse=False):
                setattr(module, name, placed[id(old)])
        yield model


def score_rows(policy: Any, lengths: Sequence[tuple[str, int, int]]) -> tuple[Any, Any]:
    """Log-probabilities and entropies of rows: prompt, its length, and that of the completion."""
    from dynalign_trainer.train.packed.layout import lay_out
    from dynalign_trainer.train.packed.policy import PackedPolicy

    rows = [{"prompt_id": p, "prompt_ids": [*range(n)], "completion_ids": [*range(m)]} for p, n, m in lengths]
    found: tuple[Any, Any] = PackedPolicy(policy, 1.0)(lay_out(rows))  # type: ignore[arg-type]
    return found
