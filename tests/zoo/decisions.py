"""What the preflight, which fetch runs before anything else, decides about a model folder with the default settings."""

import re
from pathlib import Path
from typing import Final

from dynalign_contract.settings import ChatSettings, EngineSettings, Quantized, Thinking, TrainingBackend
from dynalign_trainer.models.template_errors import ThinkingError
from dynalign_trainer.preflight.checks import inspect_folder
from dynalign_trainer.preflight.findings import Findings
from dynalign_trainer.preflight.sampler import SamplerError
from support.preflight_runs import a_preflight
from zoo.families import Passes, Refused, Thoughts

_OBSTACLE: Final = re.compile(r"Packed does not compute (?P<what>.*) of \w+")
_RENAMED: Final = re.compile(r"method is Full, but \w+ trains (?P<name>[\w.]+), which the model's files do not have")
_UNSAMPLED: Final = re.compile(
    r"(?P<what>imports \w+, which is not installed|has recurrent layers|keeps its experts (one by one|as Granite does))"
)


def decide(folder: Path, quantized: Quantized = Quantized.REFUSE) -> Passes | Refused:
    """Inspect a folder twice: adapters without thoughts, as the defaults are, and full training with thoughts."""
    usual = _inspect(folder, "LoRA", Thinking.OFF, quantized)
    other = _inspect(folder, "Full", Thinking.ON, quantized)
    needs_thoughts = [error for error in usual.errors if isinstance(error, ThinkingError)]
    unsampled = [error for error in usual.errors if isinstance(error, SamplerError)]
    refusals = [error for error in usual.errors if error not in (*needs_thoughts, *unsampled)]
    if refusals or usual.training is None:
        return Refused(" ".join(map(str, refusals)))
    is_unasked = any('thinking is "On", but the chat template says nothing' in note for note in other.notes)
    choice = usual.training
    return Passes(
        thoughts=Thoughts.ALWAYS if needs_thoughts else Thoughts.NONE if is_unasked else Thoughts.CHOICE,
        targets=choice.target_modules,
        obstacle="" if choice.backend is TrainingBackend.PACKED else _part(_OBSTACLE, choice.backend_reason),
        renamed=_renamed(other),
        unsampled=" and ".join(_part(_UNSAMPLED, str(error)) for error in unsampled),
    )


def _inspect(folder: Path, method: str, thinking: Thinking, quantized: Quantized) -> Findings:
    chat = ChatSettings(thinking=thinking)
    return inspect_folder(folder, a_preflight(method=method), EngineSettings(), chat, quantized)


def _renamed(findings: Findings) -> str:
    """See `Passes.renamed`; any other refusal of full training is whole."""
    errors = [error for error in findings.errors if not isinstance(error, SamplerError)]
    if not errors:
        return ""
    name = _part(_RENAMED, " ".join(map(str, errors)))
    return ".".join(name.removesuffix(".weight").split(".")[-2:])


def _part(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return text if found is None else found[1]
