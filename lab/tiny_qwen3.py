"""A random Qwen3 of 60 thousand parameters with a byte-level tokenizer, as a Hugging Face folder; made in a second."""

from pathlib import Path
from typing import Final

from lab.byte_tokenizer import write_byte_tokenizer

CHATML = (
    "{%- for m in messages -%}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
_MARKS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_NAMED: Final = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def write_tiny_qwen3(folder: Path, *, seed: int = 0, head_dim: int = 32) -> Path:
    """Write model and tokenizer, with weights drawn from `seed`. vLLM has no CPU kernel for a smaller `head_dim`."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    wrapped = write_byte_tokenizer(folder, CHATML, marks=_MARKS, named=_NAMED)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(wrapped),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=head_dim,
        intermediate_size=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.3,
        eos_token_id=wrapped.eos_token_id,
        pad_token_id=wrapped.pad_token_id,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).float().save_pretrained(folder)
    return folder
