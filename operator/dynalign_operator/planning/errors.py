"""Why the planner cannot name a next Job. Each carries the reason of the Stalled condition."""

from dynalign_operator.planning import reasons


class PlanningError(Exception):
    """The message is one paragraph for the user: what, where, remedy."""

    reason: str = ""


class BadObjectiveError(PlanningError):
    """The run's objective is missing or cannot be read; it may appear or be mended while the run waits."""

    reason = reasons.BAD_OBJECTIVE


class MissingClaimError(PlanningError):
    """A claim of the user's own is not there; it may appear while the run waits."""

    reason = reasons.MISSING_CLAIM


class VolumeNotSharedError(PlanningError):
    """A claim of the user's own cannot be mounted by all the pods that need it at once."""

    reason = reasons.VOLUME_NOT_SHARED


class MissingArtifactError(PlanningError):
    """The status lacks an artifact that the next stage needs, for example after it was edited by hand."""

    reason = reasons.MISSING_ARTIFACT

    def __init__(self, field: str) -> None:
        super().__init__(
            f"{field} names no artifact, so the next stage has no input. Restore the status from a backup, or start "
            "the run anew under another name."
        )
