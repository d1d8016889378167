"""Notifications: which events of a run are sent to which webhook, and what the status remembers of them."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.endpoints import URL_PATTERN
from dynalign_contract.references import SecretKeyRef
from dynalign_contract.result import PlainText


class NotifyEvent(StrEnum):
    """What a webhook is told."""

    SUCCEEDED = "Succeeded"
    """The model is exported."""
    FAILED = "Failed"
    """The run has ended without one."""
    STALLED = "Stalled"
    """The run is held until somebody acts."""
    JUDGE_UNFIT = "JudgeUnfit"
    """A gate of `judging.gates` refuses the judge of the latest judged iteration."""
    REGRESSED = "Regressed"
    """The latest evaluated iteration is worse than the base model."""
    AWAITING_APPROVAL = "AwaitingApproval"
    """A person has to approve what the run has made."""


class Webhook(Model):
    """A server that is told of events: CloudEvents 1.0 in JSON, signed as Standard Webhooks defines."""

    url: str = Field(
        pattern=URL_PATTERN,
        max_length=1024,
        json_schema_extra={"x-form": "an address without a key, such as https://hooks.example.com/dynalign"},
    )
    """Address to which events are posted. It begins with https, unless the host is inside the cluster: a Service's bare
    name, or `NAME.NAMESPACE.svc`. Link-local addresses and those of metadata services are refused, redirects are not
    followed."""
    secret_ref: SecretKeyRef
    """Key of the signature: `whsec_` and base64, or any other text of at least 16 characters. `dynalign run` takes it
    from the environment: DYNALIGN_NOTIFY_0_KEY for the first webhook."""
    events: tuple[NotifyEvent, ...] = Field(default=tuple(NotifyEvent), max_length=len(NotifyEvent))
    """What is sent. Default: everything."""


class NotificationOutcome(StrEnum):
    """What became of a notification."""

    DELIVERED = "Delivered"
    """The server has acknowledged it."""
    GAVE_UP = "GaveUp"
    """The server has not acknowledged it within a day, or does not want any more (410)."""


class Notification(Model):
    """A notification that is over."""

    id: str
    """Id of the notification, the header `webhook-id`: one however often it was sent."""
    event: NotifyEvent
    """What was told."""
    outcome: NotificationOutcome
    """What became of it."""
    time: datetime
    """When that was."""
    message: PlainText = Field(default="", max_length=512)
    """Why it was given up; empty for one that was delivered."""
