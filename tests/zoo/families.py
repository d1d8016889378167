"""A family of models as the zoo has it: a random model of two layers, a chat template, and what fetch decides."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from lab.byte_tokenizer import write_byte_tokenizer
from support.chat_templates import TOKENS, read_template
from support.quantised_models import Quantiser
from support.tiny_models import TinyModel

_PAD: Final = "<|endoftext|>"
"""A token of this name is what transformers' own tokenizer class of Qwen2 adds where it is missing."""

_MARKS: Final = ("<think>", "</think>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>")
"""Marks of thoughts, which the tokenizers of models whose templates have them write as one token each."""
_WINDOW: Final = 96
"""Tokens; two layers of it reach from a judge's answer back to the candidate, but not to the beginning."""
_LENGTH: Final = 4096
_SIZES: Final = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 128, "max_position_embeddings": _LENGTH}
"""The least that vLLM has kernels for on a CPU: heads of 32, experts of multiples of 32."""

ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
USUAL: Final = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
EXPERTS: Final = "experts.down_proj"


class Thoughts(StrEnum):
    """What a chat template makes of `spec.model.chat.thinking`."""

    NONE = "none"
    """The template says nothing of thoughts."""
    CHOICE = "Off or On"
    """Answers begin at once, or after a thought, as the run says."""
    ALWAYS = "On only"
    """The template asks for a thought whatever the run says, so that `Off`, the default, is refused."""


@dataclass(frozen=True)
class Passes:
    """A model that can be aligned with the default settings, but for `thinking` where the template forces it."""

    thoughts: Thoughts
    targets: tuple[str, ...] = USUAL
    """Modules that `targetModules: [Auto]` stands for."""
    obstacle: str = ""
    """Why `backend: Auto` is TRL; empty where it is Packed."""
    renamed: str = ""
    """The last two parts of the name of a parameter for which `method: Full` is refused: the files call it otherwise.
    Empty where full training is possible."""
    unsampled: str = ""
    """Why the vLLM for CPUs cannot sample it; empty where it can."""


@dataclass(frozen=True)
class Refused:
    """A model that fetch refuses with the default settings."""

    sentence: str
    """What it says; a part of it in the zoo's table."""


@dataclass(frozen=True)
class Family:
    """A row of the zoo's table."""

    name: str
    model: TinyModel
    template: str
    """A file of tests/data/chat_templates, without its ending."""
    decision: Passes | Refused
    is_nearest: bool = False
    """The template is that of another family: the own one is not among the test data."""
    quantiser: Quantiser | None = None
    """How the published weights are quantised; None for weights in BFloat16. The decision is the one with
    `model.quantized: Dequantize`; with the default every such family is refused."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of bytes that the tokenizer writes as one token, as `write_byte_tokenizer` takes them."""
    differs: str = ""
    """How vLLM computes it otherwise than transformers, so that the loop with a short window cannot agree."""

    def write(self, folder: Path) -> Path:
        """The model as a Hugging Face folder: configuration, tokenizer, template, weights."""
        named = {"pad_token": _PAD, **TOKENS[self.template]}
        text = read_template(self.template)
        marks = [*named.values(), *(mark for mark in _MARKS if mark in text)]
        tokenizer = write_byte_tokenizer(folder, text, marks=marks, named=named, pairs=self.pairs, length=_LENGTH)
        model = self.model.changed(**_SIZES | self.model.settings)
        if model.settings.get("sliding_window"):
            model = model.changed(sliding_window=_WINDOW)
        model.write(folder, tokenizer)
        if self.quantiser is not None:
            self.quantiser.change(folder)
        return folder
