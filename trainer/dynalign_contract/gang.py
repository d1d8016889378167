"""What a node of a training gang says at /metrics while it waits for node 0."""

from enum import IntEnum, StrEnum


class WaitMetric(StrEnum):
    """Learning metrics of a node that waits, beside those of the training."""

    SINCE = "gang_waits_since"
    """Unix time since which it waits; 0 or absent for a node that does not."""
    NODE = "gang_waits_node"
    """Its rank among the nodes."""
    CAUSE = "gang_waits_cause"
    """A `WaitCause`."""


class WaitCause(IntEnum):
    """Why node 0 cannot be reached."""

    NAME = 1
    """Its name has no address."""
    REFUSED = 2
    """Its machine answers, but nothing listens there yet."""
    SILENT = 3
    """Nothing answers in time, or there is no way there."""
