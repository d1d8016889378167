"""Reasons of conditions and events. They are API: people and tools select by them."""

from typing import Final

# Progressing
PENDING: Final = "Pending"
"""A Job waits for a place on a node, or for an earlier one to end."""
QUEUED: Final = "Queued"
"""A queue (Kueue) holds the Job back."""
STAGE_RUNNING: Final = "StageRunning"
RETRYING: Final = "Retrying"
"""A stage failed and is tried again, maybe after a pause."""
SUSPENDED: Final = "Suspended"
SUCCEEDED: Final = "Succeeded"
FAILED: Final = "Failed"
NOT_FINISHED: Final = "NotFinished"

# Stalled: the user must act
ON_TRACK: Final = "OnTrack"
BAD_OBJECTIVE: Final = "BadObjective"
BAD_CONFIG: Final = "BadConfig"
BAD_INPUT: Final = "BadInput"
CORRUPT_ARTIFACT: Final = "CorruptArtifact"
"""An artifact on the volume is not what was written; the run continues once it is removed or restored."""
UNFIT: Final = "Unfit"
"""A gate refused."""
OUT_OF_MEMORY: Final = "OutOfMemory"
"""The memory does not hold what the configuration asks for."""
REPEATED_ERROR: Final = "RepeatedError"
"""An unforeseen error came twice from the same place with the same inputs."""
RETRIES_EXHAUSTED: Final = "RetriesExhausted"
PENDING_TIMEOUT: Final = "PendingTimeout"
STALL_TIMEOUT: Final = "StallTimeout"
DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
BUDGET_EXCEEDED: Final = "BudgetExceeded"
"""The next stage would exceed `spec.policy.budget`; also a reason of an event."""
NAME_TAKEN: Final = "NameTaken"
"""An object of the needed name exists and is not the run's."""
REFUSED: Final = "Refused"
"""The API server does not take an object: quota, admission, permissions."""
INTERNAL_ERROR: Final = "InternalError"
"""The operator itself failed at this run: a fault of dynalign's."""
MISSING_CLAIM: Final = "MissingClaim"
"""A PersistentVolumeClaim that the run names does not exist."""
VOLUME_NOT_SHARED: Final = "VolumeNotShared"
"""Several pods at once need a claim that one node, or one pod, may mount."""
MISSING_ARTIFACT: Final = "MissingArtifact"
"""The status does not name an artifact that the next stage needs."""

# Degraded
REGRESSION: Final = "Regression"
NO_REGRESSION: Final = "NoRegression"

# Reported
REPORTED: Final = "Reported"
REPORT_FAILED: Final = "ReportFailed"
"""The report could not be written, which the run does not depend on."""

# Approved
AWAITING_APPROVAL: Final = "AwaitingApproval"
"""A person has to look at what the run has made; also a reason of Progressing and of an event."""
APPROVED: Final = "Approved"
REJECTED: Final = "Rejected"
"""A person refused; also a reason of Stalled."""
NO_APPROVAL_AWAITED: Final = "NoApprovalAwaited"

# Notified
NOTIFICATIONS_ON: Final = "NotificationsOn"
NOTIFICATIONS_OFF: Final = "NotificationsOff"
"""The installation sends no notifications, and the run names webhooks; also a reason of an event."""

# Events
STAGE_STARTED: Final = "StageStarted"
STAGE_SUCCEEDED: Final = "StageSucceeded"
STAGE_WARNING: Final = "StageWarning"
"""A stage succeeded, and reports something that the user should know."""
STAGE_FAILED: Final = "StageFailed"
STAGE_DISRUPTED: Final = "StageDisrupted"
RUN_SUCCEEDED: Final = "RunSucceeded"
RUN_FAILED: Final = "RunFailed"
RUN_SUSPENDED: Final = "RunSuspended"
RUN_RESUMED: Final = "RunResumed"
