"""Batches that the pods of a rollout share: files beside the prompts by which one pod asks and the others answer.

One pod writes the prompts. It offers each batch of questions as a file; pods that wait for the prompts take parts of
it, one at a time, by leases, and leave the answers in files. Names hold the digest of the batch: answers that an
earlier attempt has got to the very same questions are found, and no others. A lease is never renewed here: the pod that
asks does not wait long for a part that was taken (`shared_model`), so it need not know which pods are alive.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from dynalign_contract.files import open_plain, write_bytes
from dynalign_trainer.prompts.batches import Answers, Batch
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.leases import Leases

log = logging.getLogger("dynalign.prompts")

_BATCH: Final = ".batch.json"
_ANSWERS: Final = ".answers.json"


class Exchange:
    """The batches of one iteration's prompts, as one of the pods sees them."""

    def __init__(self, folder: Path, pod: int) -> None:
        """`folder` is there while any batch is offered; `pod` is this pod's index."""
        self._folder = folder
        self._leases = Leases(folder, pod)
        self._tried: set[str] = set()
        """Parts that this pod has taken, or found taken."""
        self._read: Batch | None = None
        """The batch that was read last."""

    @contextmanager
    def offered(self, batch: Batch) -> Iterator[None]:
        """Offer a batch, and no other, until the block ends."""
        path = self._folder / f"{batch.name}{_BATCH}"
        for other in self._folder.glob(f"*{_BATCH}"):
            other.unlink(missing_ok=True)
        write_bytes(path, batch.to_json().encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def find(self) -> Batch | None:
        """The batch that is offered now, if it can be read."""
        offered = sorted(name for name in self._leases.names() if name.endswith(_BATCH))
        for name in offered:
            if self._read is None or name != f"{self._read.name}{_BATCH}":
                self._read = self._read_batch(self._folder / name)
            if self._read is not None:
                return self._read
        return None

    def take(self, batch: Batch, most: int) -> list[int]:
        """The first `most` parts of a batch for this pod, of those that no pod has answered and no other one has taken.

        Each part is given once.
        """
        names = self._leases.names()
        taken: list[int] = []
        for part in range(batch.parts):
            name = _name(batch, part)
            if len(taken) < most and name not in self._tried and f"{name}{_ANSWERS}" not in names:
                self._tried.add(name)
                taken += [part] if self._leases.take(name) else []
        return taken

    def collect(self, batch: Batch, missing: Sequence[int]) -> dict[int, Answers]:
        """Part -> its answers, for those of the missing parts that have been answered."""
        names, found = self._leases.names(), {}
        for part in missing:
            if (name := f"{_name(batch, part)}{_ANSWERS}") in names:
                answers = self._read_answers(self._folder / name)
                if answers is not None and answers.count == len(batch.places(part)):
                    found[part] = answers
        return found

    def answer(self, batch: Batch, part: int, answers: Answers) -> None:
        """Leave the answers to a part that this pod has taken."""
        write_bytes(self._folder / f"{_name(batch, part)}{_ANSWERS}", answers.to_json().encode())

    def close(self) -> None:
        """Remove all files, once the prompts are there; every pod does, for one that was slow may have left some."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # it is gone, or another configuration's files lie there
            self._folder.parent.rmdir()

    def _read_batch(self, path: Path) -> Batch | None:
        try:
            return Batch.model_validate_json(_content(path))
        except (OSError, ValidationError) as error:  # it was withdrawn meanwhile, or an earlier version has written it
            log.debug("%s: %s", path, error)
            return None

    def _read_answers(self, path: Path) -> Answers | None:
        try:
            return Answers.model_validate_json(_content(path))
        except (OSError, ValidationError) as error:
            log.warning("%s cannot be read and is made again (%s)", path, error)
            path.unlink(missing_ok=True)
            return None


def open_exchange(context: StageContext[Any]) -> Exchange:
    """The exchange of a stage, in the folder of its leases."""
    pod = 0 if context.session is None else context.session.pod
    return Exchange(context.layout.root / context.config.leases, pod)


def _content(path: Path) -> bytes:
    with open_plain(path) as file:
        return file.read()


def _name(batch: Batch, part: int) -> str:
    return f"{batch.name}-{part:03d}"
