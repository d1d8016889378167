"""What vLLM computes on a CPU less than on a GPU."""

from typing import Any, Final

from dynalign_contract.errors import BadInputError

HEAD_SIZES: Final = frozenset({32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512})
"""Sizes of attention heads that vLLM 0.31 has kernels for on a CPU."""


def check_heads(model: Any, where: str) -> None:
    """Make sure that a CPU can sample a model. Raises BadInputError naming the size of its attention heads."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int) or getattr(config, "kv_lora_rank", None):
        return  # latent attention has kernels of its own
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    if size not in HEAD_SIZES:
        raise BadInputError(
            f"{where} has attention heads of {size} elements; on a CPU vLLM computes those of "
            f"{', '.join(map(str, sorted(HEAD_SIZES)))}. Use GPUs, or name another model in spec.model.uri."
        )
