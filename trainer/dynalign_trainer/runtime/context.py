"""What a stage is given, and what it gives back. Stages know nothing of manifests, results, signals or HTTP."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from dynalign_contract.config import Policy, StageConfig
from dynalign_contract.errors import BadConfigError, TerminatedError
from dynalign_contract.inputs import Input, InputSeries
from dynalign_contract.layout import RunLayout
from dynalign_contract.metrics import MetricDef
from dynalign_contract.training_choice import TrainingChoice
from dynalign_trainer.runtime.session import Session
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.runtime.verification import Verification

P = TypeVar("P")

log = logging.getLogger("dynalign.stage")

_LOOK_EVERY_SECONDS: Final = 0.5


@dataclass(frozen=True)
class StageOutput(Generic[P]):
    """What a stage wrote into its folder."""

    files: Mapping[str, int]
    """Name relative to the folder -> rows (0 for files that are no tables)."""
    metrics: Mapping[MetricDef[P], float | None] = field(default_factory=dict)
    """The most important first: the end is cut off if the result grows too long."""
    training: TrainingChoice | None = None
    """How the policy is trained, from the stages that know."""
    producers: Mapping[str, str] = field(default_factory=dict)
    """Distribution -> version, of packages that took part beside dynalign's own libraries."""


@dataclass(frozen=True)
class Gang:
    """The pods that train together, and which of them this is."""

    rank: int = 0
    """0 leads: it alone prepares the work and writes the artifact."""
    nodes: int = 1
    coordinator: str = ""
    """`host:port` of rank 0's rendezvous, as the others reach it; empty for a single node."""


@dataclass(frozen=True)
class StageContext(Generic[P]):
    """One attempt of a stage, or of one of its shards. P is the type of its parameters."""

    config: StageConfig
    params: P
    layout: RunLayout
    folder: Path
    """Where the stage writes; exists. Finished parts of an earlier attempt with the same configuration are kept."""
    shard: int
    inputs: Mapping[str, tuple[Path, ...]]
    """Name -> folders of an input artifact, one a shard, verified by rank 0, or being so (`weights`)."""
    telemetry: Telemetry
    stopping: threading.Event
    """Set by SIGTERM: stop at the next safe place."""
    gang: Gang = Gang()
    warnings: list[str] = field(default_factory=list)
    """Texts given to `warn`, in order."""
    session: Session | None = None
    """What the stages of a rollout share within their process; None for a stage that has a Job of its own."""
    weights: Verification | None = None
    """The check of the weights among the inputs of train, see `await_weights`."""
    shares: tuple[Path, ...] = ()
    """Folders of all shards' shares, by index, where they are to be joined into the artifact; else none. Of the inputs,
    weights are not there then."""

    def warn(self, text: str) -> None:
        """Log a warning and report it with the stage's result, from where it becomes an event of the run."""
        log.warning("%s", text)
        if text not in self.warnings:
            self.warnings.append(text)

    @property
    def iteration(self) -> int:
        """The iteration; raises BadConfigError for a stage that has none."""
        if self.config.iteration is None:
            raise BadConfigError(f"stage {self.config.stage} was configured without an iteration")
        return self.config.iteration

    def input(self, name: Input) -> Path:
        """Folder of an input artifact with one shard; raises BadConfigError when it was not given."""
        return self._folders(name)[0]

    def input_shards(self, name: Input) -> tuple[Path, ...]:
        """Folders of an input artifact; raises BadConfigError when it was not given."""
        return self._folders(name)

    def earlier(self, series: InputSeries) -> list[Path]:
        """Folders of the inputs of a series, by iteration."""
        return [self._folders(name)[0] for name in series.names(self.inputs)]

    def policy_folder(self, policy: Policy) -> Path | None:
        """Folder of a policy's adapter or weights; None for the base model. Raises BadConfigError as `input` does.

        In a rollout it may be a policy of another of its stages.
        """
        if policy.adapter is None:
            return None
        found = None if self.session is None else self.session.policy_folder(policy)
        return self._folders(policy.version)[0] if found is None else found

    def _folders(self, name: str) -> tuple[Path, ...]:
        if name not in self.inputs:
            raise BadConfigError(
                f"stage {self.config.stage} needs the input '{name}'; its StageConfig names only {sorted(self.inputs)}"
            )
        return self.inputs[name]

    def await_weights(self) -> None:
        """Return once the weights among the inputs are verified; call it before the artifact depends on them.

        Raises CorruptArtifactError, or TerminatedError on SIGTERM.
        """
        while self.weights is not None and not self.weights.has_ended(_LOOK_EVERY_SECONDS):
            self.check_stop()

    def save_useful_time(self) -> None:
        """Leave the useful time so far beside the finished parts; call it when a part is written."""
        self.telemetry.useful.save(self.folder)

    def check_stop(self) -> None:
        """Raise TerminatedError once SIGTERM has arrived. Call it between units of work."""
        if self.stopping.is_set():
            raise TerminatedError("stopped by SIGTERM; finished parts are kept and the next attempt goes on from them")

    def seed(self, *salt: object) -> int:
        """A 31-bit seed that depends on the run's seed, the stage, the iteration and the salt, and on nothing else."""
        return _seed_of(self.config.seed, str(self.config.stage), self.config.iteration, *salt)

    def run_seed(self, *salt: object) -> int:
        """A 31-bit seed that is the same in every iteration: it depends on the run's seed, the stage and the salt."""
        return _seed_of(self.config.seed, str(self.config.stage), "every iteration", *salt)


def _seed_of(*parts: object) -> int:
    import hashlib

    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1
