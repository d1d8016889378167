"""A tokenizer of bytes, a few pairs of them and a few marks, with any chat template; without training or download."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_byte_tokenizer(
    folder: Path,
    template: str,
    *,
    marks: Sequence[str],
    named: Mapping[str, str],
    pairs: Sequence[tuple[str, str]] = (),
    length: int = 512,
) -> Any:
    """Write a tokenizer as a Hugging Face folder has it, and return it.

    `marks` are the special tokens, with ids from 0; `named` says which of them are `eos_token`, `pad_token` and so on.
    `pairs` are pairs of bytes that are one token, as the byte-level alphabet of GPT-2 writes them: ("Ġ", "A") for " A".
    `length` is the longest text in tokens that the tokenizer states.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*marks, *alphabet, *map("".join, pairs)]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=list(pairs)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    others = [mark for mark in marks if mark not in named.values()]
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=others, model_max_length=length, **named
    )
    wrapped.chat_template = template
    wrapped.save_pretrained(folder)
    return wrapped
