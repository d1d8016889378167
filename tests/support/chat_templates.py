"""Chat templates of model families, rewritten from their documented form, on a tokenizer without a vocabulary."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dynalign_contract.settings import ChatSettings
from dynalign_trainer.models.chat_template import ChatTemplate

FOLDER: Final = Path(__file__).parents[1] / "data" / "chat_templates"
FAMILIES: Final = sorted(path.stem for path in FOLDER.glob("*.jinja"))
_CHATML: Final = {"eos_token": "<|im_end|>"}
_DEEPSEEK: Final = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}  # noqa: RUF001 - the tokens are written so
TOKENS: Final[dict[str, dict[str, str]]] = {
    "command-r7b": {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>"},
    "deepseek-r1": _DEEPSEEK,
    "deepseek-v3.1": _DEEPSEEK,
    "gemma-2": {"bos_token": "<bos>", "eos_token": "<end_of_turn>"},
    "gemma-3": {"bos_token": "<bos>", "eos_token": "<end_of_turn>"},
    "glm-4.5": {"eos_token": "<|user|>"},
    "gpt-oss": {"eos_token": "<|return|>"},
    "granite-3.3": {"eos_token": "<|end_of_text|>"},
    "llama-3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "llama-3.2": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "mistral-small-3": {"bos_token": "<s>", "eos_token": "</s>"},
    "mistral-v0.3": {"bos_token": "<s>", "eos_token": "</s>"},
    "phi-4": _CHATML,
    "phi-4-reasoning": _CHATML,
    "qwen2.5": _CHATML,
    "qwen3": _CHATML,
    "qwen3-thinking": _CHATML,
    "smollm2": _CHATML,
    "smollm3": _CHATML,
}
"""The token that ends a turn of each family, and the one that begins a text where its template names it."""


def read_template(family: str) -> str:
    """The text of a family's chat template."""
    return (FOLDER / f"{family}.jinja").read_text()


_TOKEN: Final = re.compile(r" ?[A-Za-z]|.", re.DOTALL)
_SPACED: Final = 1 << 21
"""Added to the number of a letter with a space before it."""


@dataclass(frozen=True)
class TemplateTokenizer:
    """A template rendered as transformers renders it; a token is a character, or a letter with a space before it."""

    template: str
    tokens: dict[str, str]
    bos_token: str | None = None
    name_or_path: str = "template"
    all_special_tokens: tuple[str, ...] = ()
    added_tokens_decoder: Mapping[int, Any] = field(default_factory=dict)

    def apply_chat_template(self, chat: Sequence[dict[str, str]], *, tokenize: bool, **arguments: Any) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        assert not tokenize
        rendered, _ = render_jinja_template([list(chat)], chat_template=self.template, **{**self.tokens, **arguments})
        return str(rendered[0])

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(token[-1]) + _SPACED * (len(token) - 1) for token in _TOKEN.findall(text)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        assert not skip_special_tokens
        return "".join(" " * (index >= _SPACED) + chr(index % _SPACED) for index in ids)


def template_of(family: str, **chat: Any) -> ChatTemplate:
    """The chat template of a family with these settings of `model.chat`."""
    return ChatTemplate(TemplateTokenizer(read_template(family), TOKENS[family]), ChatSettings.model_validate(chat))
