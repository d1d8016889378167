"""The engines of a stage that run in processes of their own: orders go to them, and replies come back."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from multiprocessing.connection import wait
from typing import Final

from dynalign_trainer.models.device_shares import Share
from dynalign_trainer.models.engine_plan import EnginePlan
from dynalign_trainer.models.replica_messages import Answer, DrawnPiece, Failed, Order, Progress, Ready, Reply
from dynalign_trainer.models.replica_processes import ReplicaProcess, end_processes, start_processes

_LOOK_EVERY_SECONDS: Final = 0.5

Result = Progress | Answer | DrawnPiece


class ReplicaFaultError(Exception):
    """Where an engine's error was raised: the cause of the error that the stage raises in its own process."""


class Replicas:
    """Engines in processes of their own. These end when this object does, and when the stage's process does."""

    def __init__(self, processes: Sequence[ReplicaProcess], shares: Sequence[Share]) -> None:
        """Made by `start_replicas`, a process for each share."""
        self.shares = list(shares)
        """What each of them may use."""
        self.slots: int | None = None
        """Sequences that run side by side in all of them; None on a CPU."""
        self.close = weakref.finalize(self, end_processes, processes)
        """Ends the processes."""
        self._processes = processes
        self._indices = {process.connection: index for index, process in enumerate(processes)}
        self._numbers = count(1)
        self._cached = [0] * len(processes)

    def __len__(self) -> int:
        """Number of engines."""
        return len(self._processes)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens so far that were found in a prefix cache and not computed again."""
        return sum(self._cached)

    def next_number(self) -> int:
        """A number for an order that no other one has had."""
        return next(self._numbers)

    def send(self, index: int, order: Order | EnginePlan) -> None:
        """Give an engine an order. Raises EngineLostError where its process has ended."""
        try:
            self._processes[index].connection.send(order)
        except OSError as error:
            raise self._processes[index].lost() from error

    def send_all(self, order: Order | EnginePlan) -> None:
        """Give every engine an order. Raises as `send` does."""
        for index in range(len(self)):
            self.send(index, order)

    def replies(self, number: int) -> Iterable[tuple[int, Result]]:
        """What has come of an order, with the engine's index, after a short wait; at most one reply of each engine.

        Raises the error of an engine, and EngineLostError where a process has ended.
        """
        found: list[tuple[int, Result]] = []
        for index, reply in self._receive():
            if isinstance(reply, Answer):
                self._cached[index] = reply.cached_tokens
            if isinstance(reply, Ready) or reply.number != number:
                continue  # of an order that was given up
            if isinstance(reply, Failed):
                raise self._fault(index, reply)
            found.append((index, reply))
        return found

    def await_start(self, check_stop: Callable[[], None]) -> None:
        """Return once every engine has started. `check_stop` may raise meanwhile; raises as `replies` does."""
        slots: dict[int, int | None] = {}
        while len(slots) < len(self):
            for index, reply in self._receive():
                if isinstance(reply, Failed):
                    raise self._fault(index, reply)
                if isinstance(reply, Ready):
                    slots[index] = reply.slots
            check_stop()
        known = [found for found in slots.values() if found is not None]
        self.slots = sum(known) if known else None

    def _receive(self) -> list[tuple[int, Reply]]:
        replies: list[tuple[int, Reply]] = []
        for connection in wait(self._indices, _LOOK_EVERY_SECONDS):
            index = self._indices[connection]  # type: ignore[index] # `wait` returns what it was given
            try:
                replies.append((index, self._processes[index].connection.recv()))
            except (EOFError, OSError) as error:
                raise self._processes[index].lost() from error
        return replies

    def _fault(self, index: int, failed: Failed) -> BaseException:
        """The error of an engine, as the stage raises it."""
        where = f" at {failed.place}" if failed.place else ""
        failed.error.__cause__ = ReplicaFaultError(f"{self._processes[index].name} raised it{where}")
        return failed.error


_waiting: list[Replicas] = []
"""Processes that `prepare_replicas` has started and nobody has taken; one stage's at most."""


def prepare_replicas(shares: Sequence[Share]) -> None:
    """Start the processes of engines to come, unless some wait already: they import their libraries meanwhile."""
    if _waiting and _waiting[0].shares != list(shares):
        _waiting.pop().close()
    if not _waiting:
        _waiting.append(Replicas(start_processes(shares), shares))


def start_replicas(plan: EnginePlan, shares: Sequence[Share], check_stop: Callable[[], None]) -> Replicas:
    """Start an engine for each share, all at once, in the processes that wait for it if there are any.

    Raises as the start of a single engine does, EngineLostError where a process ends, and what `check_stop` raises.
    """
    prepare_replicas(shares)
    replicas = _waiting.pop()
    try:
        replicas.send_all(plan)
        replicas.await_start(check_stop)
    except BaseException:
        replicas.close()
        raise
    return replicas
