"""Notifications that are over and not in the status yet: left by what sends them, taken up by the next observation."""

from collections import defaultdict
from collections.abc import Iterable

from dynalign_operator.api.notifications import Notification
from dynalign_operator.clusters.base import RunKey


class Deliveries:
    """Safe to use from several threads: each call is one operation on a dict."""

    def __init__(self) -> None:
        self._over: defaultdict[RunKey, dict[str, Notification]] = defaultdict(dict)

    def add(self, key: RunKey, notification: Notification) -> None:
        """Note one that is over."""
        self._over[key][notification.id] = notification

    def has(self, key: RunKey, notification: str) -> bool:
        """Whether one of this id is over."""
        return notification in self._over.get(key, ())

    def is_pending(self, key: RunKey) -> bool:
        """Whether anything of a run is not in its status yet."""
        return key in self._over

    def take(self, key: RunKey, stored: Iterable[Notification]) -> tuple[Notification, ...]:
        """Outcomes that are not stored yet; those that are stored are let go of."""
        pending = self._over.get(key)
        if pending is None:
            return ()
        for entry in stored:
            pending.pop(entry.id, None)
        if not pending:
            self._over.pop(key, None)
        return tuple(pending.values())

    def forget(self, key: RunKey) -> None:
        """Let go of a run that is no more."""
        self._over.pop(key, None)
