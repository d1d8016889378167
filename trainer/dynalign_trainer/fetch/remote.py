"""A model in a store that lists its files with their sizes: what tells whether it is usable first, then the weights."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.files import fsync, sha256_of
from dynalign_trainer.fetch.copying import Watch
from dynalign_trainer.models.files import choose_files, choose_metadata
from dynalign_trainer.preflight.checks import Inspection

DOWNLOADS: Final = ".downloads"
"""Below the target: unfinished files, and marks of finished ones."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a model in a store."""

    size: int
    version: str
    """What changes when the file does: an ETag, a digest."""
    sha256: str | None
    """Hexadecimal digest of its contents; None where the store does not know it."""


@dataclass(frozen=True)
class RemoteModel:
    """The files of a model in a store, by name."""

    where: str
    """Field and address, for messages."""
    files: Mapping[str, RemoteFile]
    read: Callable[[str, int], Iterator[bytes]]
    """(name, start) -> the file's bytes from `start` on. Raises StageError."""


def fetch_remote(model: RemoteModel, target: Path, watch: Watch, inspection: Inspection) -> None:
    """Download the files of the model into `target`, inspected before its weights, each verified by its digest.

    What an earlier attempt has downloaded is kept, a cut file included, unless the store's version has changed since.
    Raises BadInputError when the files are no model, do not have their digests or do not pass the inspection.
    """
    _download(model, choose_metadata(model.files, model.where), target, watch)
    inspection.check_metadata(target)
    weights = choose_files(model.files, target, model.where).weights
    inspection.check_conversion(sum(model.files[name].size for name in weights), target)
    _download(model, weights, target, watch)
    inspection.check_weights({name: target / name for name in weights})
    shutil.rmtree(target / DOWNLOADS, ignore_errors=True)


def _download(model: RemoteModel, names: Sequence[str], target: Path, watch: Watch) -> None:
    total = sum(model.files[name].size for name in names)
    done = 0
    for name in names:
        file = model.files[name]
        key = hashlib.sha256(f"{name}\0{file.version}\0{file.size}".encode()).hexdigest()[:32]
        mark, part = target / DOWNLOADS / f"{key}.done", target / DOWNLOADS / f"{key}.part"
        if not (mark.is_file() and (target / name).is_file()):
            part.parent.mkdir(parents=True, exist_ok=True)
            _write(model, name, part, partial(_tell, watch, done, total))
            _verify(model, name, part)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            part.replace(target / name)
            mark.touch()
        done += file.size
        watch(done, total)


def _tell(watch: Watch, before: int, total: int, held: int) -> None:
    watch(before + held, total)


def _write(model: RemoteModel, name: str, part: Path, tell: Callable[[int], None]) -> None:
    held = part.stat().st_size if part.exists() else 0
    if held < model.files[name].size or not part.exists():
        with part.open("ab") as output:
            for block in model.read(name, held):
                output.write(block)
                held += len(block)
                tell(held)
    fsync(part)


def _verify(model: RemoteModel, name: str, part: Path) -> None:
    file = model.files[name]
    found = part.stat().st_size
    digest = None if file.sha256 is None else sha256_of(part)
    if found == file.size and digest == file.sha256:
        return
    part.unlink()
    said = f"{found} bytes" if digest is None else f"{found} bytes and the digest {digest}"
    raise BadInputError(
        f"{model.where}: {name} has {said}, where the store says {file.size} bytes and "
        f"{file.sha256 or 'no digest'}. It was damaged, or replaced after it was published: publish the model again."
    )
