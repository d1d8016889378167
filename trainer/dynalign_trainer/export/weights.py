"""The exported weights, in the base model's files and number formats, and what these formats keep of the training."""

from dataclasses import dataclass
from typing import Any

from dynalign_contract.config import ExportParams
from dynalign_contract.files import atomic_path
from dynalign_contract.inputs import Input
from dynalign_trainer.models.merging import TrainedWeights, file_tensors
from dynalign_trainer.runtime.context import StageContext

READABLE = 0o644
"""Others serve the model: pods of another user, on the same volume."""


@dataclass
class WeightChange:
    """How far training moved the weights W to W', and how far these are from R(W'), rounded to the file's format."""

    weights: float = 0.0
    """‖W‖², over the trained weights."""
    moved: float = 0.0
    """‖W' - W‖²."""
    rounded: float = 0.0
    """‖R(W') - W'‖²."""

    def add(self, before: Any, after: Any, stored: Any) -> None:
        """Add a trained tensor: W, W' and R(W')."""
        old, new = before.double(), after.double()
        self.weights += float(old.norm()) ** 2
        self.moved += float((new - old).norm()) ** 2
        self.rounded += float((stored.double() - new).norm()) ** 2

    @property
    def relative(self) -> float:
        """‖W' - W‖ / ‖W‖; 0 where nothing was trained."""
        return (self.moved / self.weights) ** 0.5 if self.weights else 0.0

    @property
    def rounding_error(self) -> float:
        """‖R(W') - W'‖ / ‖W' - W‖: 0 where the format holds the change exactly, 1 where it holds nothing of it.

        A change smaller than half the distance between neighbouring numbers of the format is lost whole, because the
        base weights are such numbers themselves. 0 where nothing was trained.
        """
        return (self.rounded / self.moved) ** 0.5 if self.moved else 0.0


def write_weights(
    context: StageContext[ExportParams], files: tuple[str, ...], trained: TrainedWeights | None
) -> WeightChange:
    """Write the trained weights, the base model's where `trained` is None. SIGTERM is obeyed between two files."""
    from safetensors.torch import save_file

    base = context.input(Input.MODEL)
    change = WeightChange()
    for done, file in enumerate(files):
        context.telemetry.progress(done, len(files))
        context.check_stop()
        before = dict(file_tensors(base / file))
        after = before if trained is None else {name: trained.apply(name, w) for name, w in before.items()}
        stored = {name: weight.to(before[name].dtype).contiguous() for name, weight in after.items()}
        for name in trained.names & before.keys() if trained is not None else ():
            change.add(before[name], after[name], stored[name])
        with atomic_path(context.folder / file) as temporary:
            save_file(stored, temporary, metadata={"format": "pt"})
            temporary.chmod(READABLE)  # safetensors leaves it to the owner alone
    context.telemetry.progress(len(files), len(files))
    return change
