"""The inputs of a stage: their digests are checked while the libraries of its engine are imported.

Train has no engine, but processes of its own that load the model: its weights are checked beside them.
"""

import importlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from dynalign_contract.config import StageConfig, TrainParams
from dynalign_contract.inputs import Input, is_weights
from dynalign_contract.manifest import artifact_folders, verify_artifact
from dynalign_contract.phases import Phase
from dynalign_contract.result import ArtifactRef
from dynalign_contract.settings import TrainingMethod
from dynalign_trainer.runtime.context import Gang
from dynalign_trainer.runtime.session import Session
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.runtime.verification import Verification

_ENGINE: Final = "dynalign_trainer.models.opening"
"""Where the function `prepare_engine` lies, which this package does not import: train needs none of them."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of a stage."""

    folders: Mapping[str, tuple[Path, ...]]
    weights: Verification | None
    """The check of weights, where it goes on beside the stage's work."""


def take_inputs(
    config: StageConfig, root: Path, gang: Gang, session: Session | None, telemetry: Telemetry, *, asks_models: bool
) -> Inputs:
    """Folders of the inputs, verified, and the libraries of the engine, imported meanwhile if the stage needs one.

    Without `asks_models` the weights among the inputs are left out. Raises CorruptArtifactError.
    """
    wanted = {name: found for name, found in config.inputs.items() if asks_models or not is_weights(name)}
    beside = {name: wanted.pop(name) for name in _large_weights(config) & wanted.keys()}
    weights = None
    if beside and gang.rank == 0:
        weights = Verification(lambda: _verify_all(beside.values(), root, telemetry))
    with ThreadPoolExecutor(1, "verification") as other:
        verified = other.submit(_verify, wanted, root, gang, session, telemetry)
        if config.needs_engine and asks_models and (session is None or session.engine is None):
            importlib.import_module(_ENGINE).prepare_engine(config.engine)  # here: libraries may set signal handlers
        telemetry.phases.end(Phase.IMPORTS)
        inputs = verified.result()
    telemetry.phases.end(Phase.VERIFICATION)
    return Inputs({**inputs, **{name: artifact_folders(root, found) for name, found in beside.items()}}, weights)


def _large_weights(config: StageConfig) -> set[str]:
    """Names of train's inputs that processes of its own load: the model, and a policy that is one."""
    if not isinstance(config.params, TrainParams):
        return set()
    is_full = config.params.training.method is TrainingMethod.FULL
    return {name for name in config.inputs if is_weights(name) and (is_full or name == Input.MODEL)}


def _verify_all(artifacts: Iterable[ArtifactRef], root: Path, telemetry: Telemetry) -> None:
    for artifact in artifacts:
        verify_artifact(root, artifact, telemetry.verified)


def _verify(
    wanted: Mapping[str, ArtifactRef], root: Path, gang: Gang, session: Session | None, telemetry: Telemetry
) -> dict[str, tuple[Path, ...]]:
    """Folders of the inputs; rank 0 alone checks digests in a gang, and in a rollout the first stage that reads one."""
    if gang.rank > 0:
        return {name: artifact_folders(root, artifact) for name, artifact in wanted.items()}
    verify = partial(verify_artifact, root) if session is None else session.verify
    return {name: verify(artifact, telemetry.verified) for name, artifact in wanted.items()}
