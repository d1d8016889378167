"""What `rollout: Auto` comes to in a run that has begun: the kind of Jobs that it has begun with. Pure."""

from dynalign_contract.stages import ROLLOUT_STAGES, Stage
from dynalign_operator.api.rollouts import without_fused_rollout
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun, Rollout


def keep_begun_rollout(run: AlignmentRun) -> AlignmentRun:
    """The run with separate Jobs where `Auto` would fuse them in the middle of it; as it is otherwise.

    A run that an earlier version has begun, which knew no `rollout` or had another default, must not change its way.
    """
    if run.spec.rollout is not Rollout.AUTO or not _has_begun_separately(run.status):
        return run
    return without_fused_rollout(run)


def _has_begun_separately(status: AlignmentRunStatus) -> bool:
    """Whether the latest iteration that samples has entries of its stages and none of a rollout."""
    iterations = sorted(status.iterations, key=lambda iteration: iteration.index, reverse=True)
    found = ({entry.stage for entry in iteration.stages} for iteration in iterations)
    latest = next((stages for stages in found if not stages.isdisjoint({Stage.ROLLOUT, *ROLLOUT_STAGES})), set())
    return bool(latest) and Stage.ROLLOUT not in latest
