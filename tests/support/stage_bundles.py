"""The Jobs of a run, one for each stage that there is: those of a run whose rollout is fused too."""

from collections.abc import Callable, Iterable

from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.plan import JobBundle
from support.builders import RunBuilder


def first_bundles(run: RunBuilder, create: Callable[[AlignmentRun], Iterable[JobBundle]]) -> dict[Stage, JobBundle]:
    """The first bundle of each stage that `create` returns for the run, with a Job for each stage and fused."""
    found: dict[Stage, JobBundle] = {}
    for rollout in ("Separate", "Fused"):
        for bundle in create(run.with_iterations(1).with_spec(rollout=rollout).build()):
            found.setdefault(bundle.step.stage, bundle)
    return found
