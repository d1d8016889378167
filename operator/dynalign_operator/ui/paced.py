"""Looks that cost something, shared by all who ask: however many pages are open, one look at a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

LOOK_EVERY_SECONDS: Final = 1.5
_REST: Final = 3.0
"""Pause after a look, in durations of that look: slow places are looked at less often."""


class Paced(Generic[T]):
    """A value that is looked up anew when it is asked for and the last look is old enough."""

    def __init__(self, look: Callable[[], Awaitable[T]], clock: Callable[[], float] = time.monotonic) -> None:
        self._look, self._clock = look, clock
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._due = 0.0

    def expire(self) -> None:
        """Look anew the next time."""
        self._due = 0.0

    async def get(self) -> T:
        """The value, as old as the pace allows. Raises what the look raises, and then looks anew the next time."""
        async with self._lock:
            started = self._clock()
            if self._value is None or started >= self._due:
                self._value = await self._look()
                ended = self._clock()
                self._due = ended + max(LOOK_EVERY_SECONDS, _REST * (ended - started))
            return self._value
