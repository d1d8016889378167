"""What every contender is given: one file with the model, the prompts and the settings of the run.

The settings are those of the specification that dynalign runs, so no contender has a number of its own.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.objective import builtin_objective
from dynalign_contract.settings import EngineSettings, GenerationSettings, JudgingSettings, TrainingSettings
from dynalign_contract.supplied.turns import Message

OBJECTIVE: Final = "collective-agency"
GENERATE: Final = "generate"
JUDGE: Final = "judge"
TRAIN: Final = "train"
WORK: Final = (GENERATE, JUDGE, TRAIN)
"""Parts of the useful work, in order. The rest of a contender's time is its `start`."""


class PeerError(Exception):
    """A contender failed, or its result cannot be compared; the message says which one."""


class Prompt(Model):
    """A training prompt of one turn."""

    prompt_id: str
    text: str

    @property
    def messages(self) -> list[Message]:
        """The prompt as a chat."""
        return [Message(role="user", content=self.text)]


class Plan(Model):
    """One iteration, as every contender does it."""

    model: Path
    """A Hugging Face folder."""
    prompts: tuple[Prompt, ...]
    seed: int
    engine: EngineSettings
    generation: GenerationSettings
    judging: JudgingSettings
    training: TrainingSettings

    @property
    def candidates(self) -> int:
        """Answers to all prompts together."""
        return len(self.prompts) * self.generation.candidates

    @property
    def candidates_per_update(self) -> int:
        """Answers that one optimiser step trains on."""
        return self.training.prompts_per_step * self.generation.candidates

    @property
    def updates(self) -> int:
        """Optimiser steps."""
        return self.candidates // self.candidates_per_update

    @property
    def questions(self) -> int:
        """Questions to the judge: one for each aspect of each answer."""
        return self.candidates * len(builtin_objective(OBJECTIVE).aspects)

    def write(self, path: Path) -> None:
        """Write the file for the contenders' processes."""
        path.write_text(self.to_json(indent=2))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises OSError and pydantic's ValidationError."""
        return cls.model_validate_json(path.read_bytes())


class Report(Model):
    """What a contender's processes have done, and the seconds of their useful work."""

    seconds: dict[str, float] = Field(default={})
    """Part of `WORK` -> seconds."""
    tokens: int = 0
    """Sampled tokens."""
    questions: int = 0
    """Questions that the judge was asked."""
    updates: int = 0
    """Optimiser steps."""
    prompts: str = ""
    """Digest of the tokens of all prompts, as the sampler got them."""

    def __add__(self, other: "Report") -> "Report":
        """Two processes of one contender together."""
        names = (*self.seconds, *other.seconds)
        return Report(
            seconds={name: self.seconds.get(name, 0.0) + other.seconds.get(name, 0.0) for name in names},
            tokens=self.tokens + other.tokens,
            questions=self.questions + other.questions,
            updates=self.updates + other.updates,
            prompts=self.prompts or other.prompts,
        )


def digest_of(prompts: Mapping[str, Sequence[int]]) -> str:
    """Digest of the tokens of prompts, by their ids."""
    tokens = sorted((name, list(ids)) for name, ids in prompts.items())
    return sha256(json.dumps(tokens).encode()).hexdigest()
