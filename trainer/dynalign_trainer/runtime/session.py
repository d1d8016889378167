"""What one process keeps from one stage of a rollout to the next: inputs that are verified, and the engine."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynalign_contract.config import Policy, RolloutParams
from dynalign_contract.manifest import verify_artifact
from dynalign_contract.result import ArtifactRef
from dynalign_contract.stages import ROLLOUT_STAGES, Stage
from dynalign_contract.telemetry import RolloutSeries
from dynalign_trainer.runtime.telemetry import Share, Telemetry


@dataclass
class Session:
    """A rollout's process. Every byte that several of its stages read is verified once."""

    root: Path
    policies: tuple[Policy, ...]
    """Weights of which the engine has room for all, whichever stage starts it."""
    engine: Any = None
    """The engine of the stage that came first to need one; None before that."""
    folders: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """Name -> folders of the artifacts that were there before the rollout."""
    share: Share = field(default_factory=Share)
    """The place of the current stage in the rollout."""
    _verified: dict[ArtifactRef, tuple[Path, ...]] = field(default_factory=dict)
    _begun: bool = False

    @classmethod
    def begin(cls, root: Path, params: RolloutParams) -> "Session":
        """Verify what the rollout's stages read and it does not make itself. Raises CorruptArtifactError."""
        policies = {policy.version: policy for part in params.parts for policy in part.policies}
        session = cls(root, tuple(policies.values()))
        inputs: Mapping[str, ArtifactRef] = {name: ref for part in params.parts for name, ref in part.inputs.items()}
        session.folders = {name: session.verify(artifact) for name, artifact in inputs.items()}
        return session

    def verify(self, artifact: ArtifactRef) -> tuple[Path, ...]:
        """The folders of an artifact, one a shard, verified by this process. Raises CorruptArtifactError."""
        if artifact not in self._verified:
            self._verified[artifact] = verify_artifact(self.root, artifact)
        return self._verified[artifact]

    def telemetry(self, stage: Stage) -> Telemetry:
        """Telemetry of the stage that begins: the first one began with the process, the others begin now."""
        start = time.time() if self._begun else None
        self._begun = True
        telemetry = Telemetry(start, self.share)
        telemetry.metric(RolloutSeries.PART, ROLLOUT_STAGES.index(stage))
        telemetry.progress(0, 1)
        return telemetry
