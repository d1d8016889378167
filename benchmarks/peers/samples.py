"""What the plain scripts hand on to each other: answers, and then their rewards."""

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from dynalign_contract.base import Model

SAMPLES_FILE: Final = "samples.json"
REWARDS_FILE: Final = "rewards.json"
REPORT_FILE: Final = "report-{}.json"
"""What a script has done, by its name."""


class Sample(Model):
    """One answer to a prompt."""

    prompt_id: str
    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    """Log-probabilities of the completion's tokens as they were sampled."""
    text: str


_SAMPLES: Final = TypeAdapter(list[Sample])
_REWARDS: Final = TypeAdapter(list[float])


def write_samples(folder: Path, samples: list[Sample]) -> None:
    """Write the answers, those of a prompt adjacent."""
    (folder / SAMPLES_FILE).write_bytes(_SAMPLES.dump_json(samples))


def read_samples(folder: Path) -> list[Sample]:
    """Read the answers."""
    return _SAMPLES.validate_json((folder / SAMPLES_FILE).read_bytes())


def write_rewards(folder: Path, rewards: list[float]) -> None:
    """Write the rewards in the order of the answers."""
    (folder / REWARDS_FILE).write_bytes(_REWARDS.dump_json(rewards))


def read_rewards(folder: Path) -> list[float]:
    """Read the rewards."""
    return _REWARDS.validate_json((folder / REWARDS_FILE).read_bytes())
