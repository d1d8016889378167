"""Whether the installed vLLM can sample a model, which it would say only when the first engine starts."""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Final

from dynalign_contract.errors import BadInputError

HEAD_SIZES: Final = frozenset({32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512})
"""Sizes of attention heads that vLLM 0.31 has kernels for on a CPU."""
IMPORTS: Final = dict.fromkeys(("qwen3_5_text", "qwen3_5_moe_text"), ("qwen3_5", "torchvision"))
"""Model type -> module of `vllm.model_executor.models`, and what it imports that not every installation has."""

_PACKED_EXPERTS: Final = {
    re.compile(r"\.experts\.\d+\."): "one by one",
    re.compile(r"\.block_sparse_moe\.input_linear\."): "as Granite does",
}
"""Names of tensors -> how the files of such a model keep its experts."""


class SamplerError(BadInputError):
    """The installed vLLM cannot sample the model; another one can."""


def check_imports(model: Any, where: str) -> None:
    """Make sure that vLLM's own code of the model can be imported. Raises SamplerError naming what it lacks."""
    _, package = IMPORTS.get(model.config.get_text_config().model_type, ("", ""))
    if package and find_spec(package) is None:
        raise SamplerError(
            f"vLLM samples {where} with code that imports {package}, which is not installed here. Use the image for "
            f"GPUs or install {package} for the installed torch, or name another model in spec.model.uri."
        )


def check_experts(names: Iterable[str], where: str) -> None:
    """Make sure that a CPU can sample what is trained of a mixture of experts. Raises SamplerError naming a tensor.

    On a CPU the weights of the policy take the place of the base model's in a running engine. vLLM 0.31 packs most
    experts, and computes with something else once they were exchanged: the log-probabilities of Qwen3 MoE were off by 3
    nats, and no row of Granite 3 MoE stayed within `training.ratioBand`. Those of gpt-oss it computes otherwise.
    """
    kept = ((name, how) for name in sorted(names) for form, how in _PACKED_EXPERTS.items() if form.search(name))
    if found := next(kept, None):
        raise SamplerError(
            f"{where} keeps its experts {found[1]} ({found[0]}); on a CPU vLLM cannot exchange the weights of such a "
            "model, so the trained policy could not be sampled. Use GPUs, or name another model in spec.model.uri."
        )


def check_recurrence(model: Any, where: str) -> None:
    """Make sure that a CPU can sample the model. Raises SamplerError for one with recurrent layers.

    On a CPU prompts are read whole (`engine_arguments`), and vLLM 0.31 keeps the state of recurrent layers at prefixes
    only where it reads prompts in pieces; its kernel of their convolutions does not compute in float32 either.
    """
    import torch

    if any(isinstance(module, torch.nn.Conv1d) for module in model.modules()):
        raise SamplerError(
            f"{where} has recurrent layers or convolutions over tokens, which vLLM does not sample on a CPU with seeds "
            "of one's own and in Float32. Use GPUs, or name another model in spec.model.uri."
        )


def check_heads(model: Any, where: str) -> None:
    """Make sure that a CPU can sample the model. Raises SamplerError naming the size of its attention heads."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int) or getattr(config, "kv_lora_rank", None):
        return  # latent attention has kernels of its own
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    if size not in HEAD_SIZES:
        raise SamplerError(
            f"{where} has attention heads of {size} elements; on a CPU vLLM computes those of "
            f"{', '.join(map(str, sorted(HEAD_SIZES)))}. Use GPUs, or name another model in spec.model.uri."
        )
