"""Pods of a stage and their accelerators, as the Jobs of a run ask for them."""

from dataclasses import dataclass

from dynalign_contract.stages import SHARDED_STAGES, Stage
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec


@dataclass(frozen=True)
class Placement:
    """Pods that work side by side, each with so many accelerators."""

    pods: int
    accelerators: int
    """Accelerators of one pod; on CPUs the cores of a machine count as one."""

    @property
    def total(self) -> int:
        """Accelerators of all pods."""
        return self.pods * self.accelerators


def placement_of(spec: AlignmentRunSpec, stage: Stage) -> Placement:
    """Where a stage runs."""
    match stage:
        case Stage.FETCH | Stage.EXPORT | Stage.REPORT:
            return Placement(1, 0)
        case Stage.TRAIN:
            return Placement(spec.training.nodes, spec.training.gpus_per_node)
        case _:
            return Placement(spec.generation.shards if stage in SHARDED_STAGES else 1, spec.engine.tensor_parallel)
