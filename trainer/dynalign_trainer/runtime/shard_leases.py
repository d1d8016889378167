"""Leases on the shards of a rollout's parts: a pod that is not there is replaced by one that waits for it.

Pods of a rollout wait for what all shards have made, so one that has no GPU yet, or was lost, would hold all others.
Each pod therefore holds a lease on the shard that it makes, and a thread renews it, whatever the pod does. A pod that
waits, and sees for `EXPIRY_SECONDS` no lease on a missing shard or an unchanged one, takes the lease and makes that
shard; should its own pod come, it waits, and finds the shard made. A rollout thus goes on with any number of its pods.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dynalign_contract.stages import Stage
from dynalign_trainer.runtime.leases import Leases

_RENEW_EVERY_SECONDS: Final = 1.0
_SETTLED_SECONDS: Final = 1.0
"""Longer than two pods that find the same lease expired need to take it over."""


class ShardLeases:
    """The leases of one rollout, as one of its pods sees them."""

    def __init__(self, folder: Path, holder: int) -> None:
        """`holder` is the pod's index."""
        self._folder = folder
        self._leases = Leases(folder, holder)

    def take(self, stage: Stage, shard: int) -> bool:
        """Whether this pod may make a shard; False where another pod is at it."""
        return self._leases.take(_name(stage, shard))

    def take_expired(self, stage: Stage, shard: int) -> bool:
        """Whether this pod may make a shard that nobody has been at for some time; call it again and again."""
        name = _name(stage, shard)
        if not self._leases.has_expired(name) or not self._leases.take_over(name):
            return False
        time.sleep(_SETTLED_SECONDS)
        return self._leases.holds(name)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew what this pod holds until the block ends, and release it then."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(_RENEW_EVERY_SECONDS):
                with contextlib.suppress(OSError):  # of the volume; the next try may succeed, or others notice
                    self._leases.renew()

        thread = threading.Thread(target=renew, daemon=True, name="shard-lease")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._leases.release()

    def close(self) -> None:
        """Remove the folder if no other pod has leases in it."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()
            self._folder.parent.rmdir()


def _name(stage: Stage, shard: int) -> str:
    return f"{stage}-{shard:03d}"
