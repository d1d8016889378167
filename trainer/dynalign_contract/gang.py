"""Metrics of a training node that waits for node 0."""

from enum import IntEnum, StrEnum


class WaitMetric(StrEnum):
    """Learning metrics of a node that waits, beside those of the training."""

    SINCE = "gang_waits_since"
    """Unix time since which it waits; 0 or absent for a node that does not."""
    NODE = "gang_waits_node"
    """Rank of the node."""
    CAUSE = "gang_waits_cause"
    """A `WaitCause`."""


class WaitCause(IntEnum):
    """Why node 0 cannot be reached."""

    NAME = 1
    """The name of node 0 has no address."""
    REFUSED = 2
    """The machine answers, but nothing listens on the port yet."""
    SILENT = 3
    """Nothing answers in time, or there is no way there."""
