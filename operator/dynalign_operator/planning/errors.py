"""Why the planner cannot name a next Job. Each carries the reason of the Stalled condition."""

from pydantic import ValidationError

from dynalign_operator.planning import reasons


class PlanningError(Exception):
    """The message is one paragraph for the user: what, where, remedy."""

    reason: str = ""


class BadObjectiveError(PlanningError):
    """The run's objective is missing or cannot be read; it may appear or be corrected while the run waits."""

    reason = reasons.BAD_OBJECTIVE


class MissingClaimError(PlanningError):
    """A claim of the user's own is not there; it may appear while the run waits."""

    reason = reasons.MISSING_CLAIM


class VolumeNotSharedError(PlanningError):
    """A claim of the user's own cannot be mounted by all the pods that need it at once."""

    reason = reasons.VOLUME_NOT_SHARED


class NotAllowedError(PlanningError):
    """The run names what the installation does not let runs name; the installation may change while the run waits."""

    reason = reasons.REFUSED


class UnfitStatusError(PlanningError):
    """Specification and status do not make a valid configuration, for example after the status was edited by hand."""

    reason = reasons.INTERNAL_ERROR

    def __init__(self, step: object, error: ValidationError) -> None:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        super().__init__(
            f"the configuration of {step} does not hold together ({field}: {first['msg']}). If the status was edited "
            "by hand, restore it; else this is a fault of the operator. It is tried again every minute."
        )


class MissingArtifactError(PlanningError):
    """The status lacks an artifact that the next stage needs, for example after it was edited by hand."""

    reason = reasons.MISSING_ARTIFACT

    def __init__(self, field: str) -> None:
        super().__init__(
            f"{field} names no artifact, so the next stage has no input. Restore the status from a backup, or start "
            "the run anew under another name."
        )
