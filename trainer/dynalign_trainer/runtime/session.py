"""What one process keeps from one stage of a rollout to the next: inputs that are verified, and the engine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynalign_contract.config import Policy, RolloutParams
from dynalign_contract.manifest import verify_artifact
from dynalign_contract.result import ArtifactRef
from dynalign_contract.stages import PART_STAGES, Stage
from dynalign_contract.telemetry import RolloutSeries
from dynalign_trainer.runtime.telemetry import Share, Telemetry


@dataclass
class Session:
    """A rollout's process. Every byte that several of its stages read is verified once."""

    root: Path
    policies: tuple[Policy, ...]
    """Weights of which the engine has room for all, whichever stage starts it."""
    pod: int = 0
    """Index of this pod."""
    pods: int = 1
    """Pods of the rollout."""
    engine: Any = None
    """The engine of the stage that came first to need one; None before that."""
    inputs: Mapping[str, ArtifactRef] = field(default_factory=dict)
    """Name -> artifact that was there before the rollout."""
    share: Share = field(default_factory=Share)
    """The place of the current stage in the rollout."""
    _verified: dict[ArtifactRef, tuple[Path, ...]] = field(default_factory=dict)
    _begun: bool = False

    @classmethod
    def begin(cls, root: Path, params: RolloutParams, *, pod: int, pods: int) -> "Session":
        """The session of a rollout with these parts, in one of its pods."""
        policies = {policy.version: policy for part in params.parts for policy in part.policies}
        inputs = {name: artifact for part in params.parts for name, artifact in part.inputs.items()}
        return cls(root, tuple(policies.values()), pod, pods, inputs=inputs)

    def verify(self, artifact: ArtifactRef, on_bytes: Callable[[int], None] = lambda _: None) -> tuple[Path, ...]:
        """The folders of an artifact, one a shard, verified by this process. Raises CorruptArtifactError."""
        if artifact not in self._verified:
            self._verified[artifact] = verify_artifact(self.root, artifact, on_bytes)
        return self._verified[artifact]

    def policy_folder(self, policy: Policy) -> Path | None:
        """Folder of a policy that any of the stages uses, verified; None where none of them has it as an input."""
        artifact = self.inputs.get(policy.version)
        return None if artifact is None else self.verify(artifact)[0]

    def telemetry(self, stage: Stage) -> Telemetry:
        """Telemetry of the stage that begins: the first one began with the process, the others begin now."""
        start = time.time() if self._begun else None
        self._begun = True
        telemetry = Telemetry(start, self.share)
        telemetry.metric(RolloutSeries.PART, PART_STAGES.index(stage))
        telemetry.progress(0, 1)
        return telemetry
