"""The parts of a sharded stage, which its pods share: each makes its own first, and then those that nobody has begun.

Every part belongs to a shard, and ends up in that shard's folder whoever makes it, so the artifact does not depend on
who did. What a pod makes for another shard lies beside the leases until that shard takes it in. A pod helps only while
its engine runs anyway, and waits only for parts of its own that another pod is at; so shards may also run one after
the other, where the first of them makes all parts.
"""

import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.files import write_bytes
from dynalign_contract.records import Table, read_rows, write_rows
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.leases import Leases
from dynalign_trainer.runtime.parts import Part, reuse_finished_parts, split_parts

log = logging.getLogger("dynalign.parts")

_LOOK_EVERY_SECONDS: Final = 0.5
_PARTS: Final = 4
"""Parts of a shard among several, if it has as many inputs: with fewer there is little that others could take over."""

In = TypeVar("In")
R = TypeVar("R")


@dataclass(frozen=True)
class Task(Generic[In]):
    """A part that this pod is to make."""

    shard: int
    """Whose part it is."""
    part: Part[In]

    @property
    def name(self) -> str:
        """Name of its lease."""
        return f"{self.shard:03d}-{self.part.index:05d}"

    def result(self, maker: int) -> str:
        """File name of the part as another pod has made it."""
        return f"{self.name}.by-{maker:03d}.parquet"


class SharedParts(Generic[In, R]):
    """The parts of all shards as one of them sees them. A context manager: leases are released on an error."""

    def __init__(
        self,
        context: StageContext[Any],
        inputs: Sequence[In],
        *,
        size: int,
        table: Table[R],
        is_complete: Callable[[Part[In], list[R]], bool],
        accepts: Callable[[list[R]], bool] = lambda _: True,
    ) -> None:
        """`inputs` are those of all shards, dealt out one by one; a part has `size` of them, or fewer where a shard
        among several would have less than `_PARTS` parts.

        Parts that an earlier attempt has finished are kept, as `reuse_finished_parts` says. `accepts` says whether
        complete rows that another pod has made are what this one would make.
        """
        config = context.config
        self._context, self._table, self._is_complete, self._accepts = context, table, is_complete, accepts
        self._shard, self._shards = context.shard, config.shards
        if config.shards > 1:
            size = min(size, max(1, -(-len(inputs) // (_PARTS * config.shards))))
        self._tasks = [
            [Task(shard, part) for part in split_parts(inputs[shard :: config.shards], size)]
            for shard in range(config.shards)
        ]
        self.rows: dict[int, list[R]] = reuse_finished_parts(context.folder, self.parts, table, is_complete)
        """Rows of this shard's finished parts, by index."""
        self._taken: set[int] = set()
        """This shard's parts that this pod has begun."""
        self._helped: list[Task[In]] = []
        """Parts of other shards that this pod has begun."""
        self._finished: set[str] = set()
        """Names of those of them that are finished."""
        self._leases = Leases(context.layout.root / config.leases, context.shard)

    @property
    def parts(self) -> list[Part[In]]:
        """This shard's parts."""
        return [task.part for task in self._tasks[self._shard]]

    @property
    def total(self) -> int:
        """Inputs of this shard's parts, and of those that this pod makes for others."""
        return sum(len(part.inputs) for part in (*self.parts, *(task.part for task in self._helped)))

    @property
    def done(self) -> int:
        """Inputs of those of them that are finished."""
        own = (part for part in self.parts if part.index in self.rows)
        helped = (task.part for task in self._helped if task.name in self._finished)
        return sum(len(part.inputs) for part in (*own, *helped))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None:
            self._leases.release()

    def take(self) -> Task[In] | None:
        """The next part for this pod, its own first; None if there is none that it may begin now."""
        return self.take_own() or self.take_for_others()

    def take_own(self) -> Task[In] | None:
        """The next of this shard's own parts; None if every one is made or begun.

        It is this pod's until `finish`; call `renew` meanwhile.
        """
        names = self._leases.names()
        for task in self._open():
            if task.part.index not in self._taken and not self._take_in(task, names) and self._acquire(task):
                return task
        return None

    def take_for_others(self) -> Task[In] | None:
        """A part that another shard has not begun; None if there is none, or this pod has had none of its own.

        It is the last one of the shard that has begun the fewest: that shard goes on with its first.
        """
        names = self._leases.names() if self._taken else frozenset()
        begun = {name.partition(".")[0] for name in names}
        left = {
            shard: [task for task in tasks if task.name not in begun]
            for shard, tasks in enumerate(self._tasks)
            if self._taken and shard != self._shard and _mark(shard) not in names
        }
        for shard in sorted(left, key=lambda shard: -len(left[shard])):
            folder = self._context.layout.root / self._context.config.shard(shard)
            for task in reversed(left[shard]):
                if not (folder / task.part.name).exists() and self._leases.take(task.name):
                    log.info("making part %s of shard %d, which it has not begun", task.part.name, shard)
                    self._helped.append(task)
                    return task
        return None

    def wait(self) -> Task[In] | None:
        """Wait for this shard's parts that other pods are at; None once all parts of the shard are there.

        A part whose pod has gone is returned: this pod is to make it. Raises TerminatedError on SIGTERM.
        """
        while True:
            names = self._leases.names()
            for task in self._open():
                if self._take_in(task, names):
                    continue
                if self._leases.has_expired(task.name) and self._leases.take_over(task.name):
                    log.warning("%s: the pod that has taken this part is gone; it is made here", task.part.name)
                if self._acquire(task):
                    return task
            if not self._open():
                self._close()
                return None
            self._context.stopping.wait(_LOOK_EVERY_SECONDS)
            self._context.check_stop()

    def renew(self) -> None:
        """Keep this pod's leases; call it between the steps of an engine."""
        self._leases.renew()

    def finish(self, task: Task[In], rows: list[R]) -> None:
        """Write a part that this pod has taken."""
        if task.shard == self._shard:
            write_rows(self._context.folder / task.part.name, rows, self._table)
            self.rows[task.part.index] = rows
        else:
            self._finished.add(task.name)
            if self._leases.holds(task.name):
                write_rows(self._leases.folder / task.result(self._shard), rows, self._table)
        self._context.save_useful_time()

    def _open(self) -> list[Task[In]]:
        """This shard's parts that are not there yet."""
        return [task for task in self._tasks[self._shard] if task.part.index not in self.rows]

    def _acquire(self, task: Task[In]) -> bool:
        if self._shards > 1 and not self._leases.take(task.name):
            return False
        self._taken.add(task.part.index)
        return True

    def _take_in(self, task: Task[In], names: frozenset[str]) -> bool:
        """Make a part that another pod has finished this shard's own, if there is one."""
        for name in sorted(names):
            if not name.startswith(f"{task.name}.by-"):
                continue
            path = self._leases.folder / name
            rows = self._read(path)
            if rows is not None and self._is_complete(task.part, rows) and self._accepts(rows):
                path.replace(self._context.folder / task.part.name)
                self.rows[task.part.index] = rows
                return True
            log.warning("%s is not a whole part of this stage and is made again", path)
            path.unlink(missing_ok=True)
            self._leases.take_over(task.name)
        return False

    def _read(self, path: Path) -> list[R] | None:
        try:
            return read_rows(path, self._table)
        except (CorruptArtifactError, FileNotFoundError):
            return None

    def _close(self) -> None:
        """Say that all parts of this shard are there; the last shard to say so removes the leases."""
        folder = self._leases.folder
        if self._shards == 1 or not folder.exists():
            return
        write_bytes(folder / _mark(self._shard), b"")
        if {_mark(shard) for shard in range(self._shards)} <= self._leases.names():
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # leases of something else lie there, too
                folder.parent.rmdir()


def _mark(shard: int) -> str:
    """Name of the file that says that all parts of a shard are there."""
    return f"{shard:03d}.done"
