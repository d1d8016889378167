"""The worker of the train stage, from a batch to a policy, with each kind of optimiser state."""

from benchmarks.gpu_checks.finding import Finding, Place
from benchmarks.gpu_checks.older_torch import admit_grouped_heads
from lab.training_trials import EVERY_CASE, FEW_CASES, MIDDLE_ON_CUDA, TINY_ON_CPU, compare_trainings


def check(place: Place) -> Finding:
    """Follow float32 in bfloat16 and resume from checkpoints; on a CPU, with fewer cases of a tiny model."""
    admit_grouped_heads()
    size, cases = (MIDDLE_ON_CUDA, EVERY_CASE) if place.is_cuda else (TINY_ON_CPU, FEW_CASES)
    values, faults = compare_trainings(place.folder, size, cases)
    return Finding({"trained": len(values), "cases": values}, tuple(faults))
