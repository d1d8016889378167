"""Pods of a stage and their accelerators, as the Jobs of a run ask for them."""

from dataclasses import dataclass

from dynalign_contract.accelerators import Hardware
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.manifests.overrides import count_engines, count_gpus, count_pods


@dataclass(frozen=True)
class Placement:
    """Pods that work side by side, each with so many accelerators."""

    pods: int
    accelerators: int
    """Accelerators of one pod; on CPUs the cores of a machine count as one."""
    engines: int = 1
    """Engines of one pod, which share its accelerators."""

    @property
    def total(self) -> int:
        """Accelerators of all pods."""
        return self.pods * self.accelerators

    @property
    def parallel(self) -> int:
        """Accelerators over which one engine is split; 1 where it has none."""
        return max(1, self.accelerators // self.engines)

    @property
    def total_engines(self) -> int:
        """Engines of all pods."""
        return self.pods * self.engines


def placement_of(spec: AlignmentRunSpec, stage: Stage, hardware: Hardware) -> Placement:
    """Where a stage runs. A machine without GPUs counts as one accelerator for every stage that computes."""
    computes = stage not in (Stage.FETCH, Stage.EXPORT, Stage.REPORT)
    accelerators = int(computes) if hardware is Hardware.CPU else count_gpus(spec, stage)
    engines = 1 if hardware is Hardware.CPU else max(1, count_engines(spec, stage))
    return Placement(count_pods(spec, stage), accelerators, engines)
