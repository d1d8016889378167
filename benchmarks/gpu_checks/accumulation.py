"""Whether gradients of many micro-batches keep float32's digits."""

from typing import Any

from benchmarks.gpu_checks.finding import Finding, Place
from dynalign_trainer.train.packed.engine import start_distributed
from lab.gradient_precision import measure_errors
from lab.training_jobs import be_the_only_rank


def check(place: Place) -> Finding:  # noqa: ARG001 - small enough for any device
    """Compare dynalign's configuration and DeepSpeed's default with float64, for each way of sharding."""
    be_the_only_rank()
    start_distributed()
    values: dict[str, Any] = {}
    faults: list[str] = []
    for zero in (1, 2, 3):
        errors = measure_errors(zero)
        values |= {f"zero{zero}": round(errors.ours, 5), f"zero{zero}_default": round(errors.default, 5)}
        faults += [f"ZeRO-{zero}: {fault}" for fault in errors.faults]
    return Finding(values, tuple(faults))
