"""Text of sampled tokens once they are all there, as vLLM makes it while it samples."""

from collections.abc import Sequence
from typing import Any, Final

from tokenizers.decoders import DecodeStream

_LOST: Final = "Invalid prefix encountered"
"""What the stream says after bytes that are no text (tokenizers 0.22 and later); it is begun anew then, as in vLLM."""


class Detokenizer:
    """Turns sampled tokens into text with a fast tokenizer.

    vLLM feeds the tokens of a completion to a stream that has seen its prompt. What this makes of them differs from
    decoding them alone: a first space is kept, and bytes at the end that are no whole character are left out.
    """

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is one of the tokenizers library. Made by `open_detokenizer`."""
        self._tokenizer = tokenizer

    def text(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """Text of the tokens `ids` that follow those of `prompt`, without special tokens."""
        stream = DecodeStream(ids=list(prompt), skip_special_tokens=True)
        pieces = []
        for token in ids:
            try:
                piece = stream.step(self._tokenizer, token)
            except Exception as error:
                if not str(error).startswith(_LOST):
                    raise
                stream = DecodeStream(skip_special_tokens=True)
                piece = stream.step(self._tokenizer, token)
            pieces.append(piece or "")
        return "".join(pieces)


def open_detokenizer(tokenizer: Any) -> Detokenizer | None:
    """The detokenizer of a tokenizer of transformers; None for one that is written in Python."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    return None if inner is None else Detokenizer(inner)
