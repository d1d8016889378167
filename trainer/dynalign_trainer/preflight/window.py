"""The context window against the longest prompt and the longest answer."""

from pathlib import Path
from typing import Final

from dynalign_contract.errors import BadConfigError
from dynalign_contract.preflight import Preflight
from dynalign_trainer.models.folder import context_window

_LEAST: Final = 8
"""Tokens that a prompt needs at the very least."""


def check_window(folder: Path, max_length: int | None, preflight: Preflight) -> int:
    """The longest prompt in tokens. Raises BadConfigError when answers leave no room for any, or `context_window`'s."""
    window = context_window(folder, max_length)
    thought = preflight.thinking_tokens or 0
    room = window - preflight.max_tokens - thought
    if room < _LEAST:
        beside = f" and thinkingTokens {thought}" if thought else ""
        raise BadConfigError(
            f"spec.generation.maxTokens is {preflight.max_tokens}{beside}, and the context window has {window} tokens, "
            "so no prompt fits in before the answer. Lower spec.generation.maxTokens, or raise spec.engine.maxLength "
            "as far as the model allows."
        )
    return min(preflight.prompts.max_tokens, room)
