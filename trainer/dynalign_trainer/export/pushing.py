"""What is pushed, and how a push tells how far it is."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dynalign_contract.manifest import ArtifactFile, Manifest
from dynalign_contract.settings import PublishContent
from dynalign_trainer.stores.place import PublishMismatchError, StorePlace


@dataclass(frozen=True)
class Export:
    """What is pushed: a finished export, or a data set."""

    run: str
    """Name of the run."""
    folder: Path
    manifest: Manifest
    content: PublishContent = PublishContent.MODEL


@dataclass(frozen=True)
class Push:
    """One push of an export to one place."""

    advance: Callable[[int], None]
    """Called with the number of bytes that were pushed, or read back, since the last call; raises to stop. Every place
    takes each byte of the export twice."""

    def read_back(self, file: ArtifactFile, blocks: Iterable[bytes], place: StorePlace) -> None:
        """Compare what the place holds with what was pushed. Raises PublishMismatchError."""
        digest, size = hashlib.sha256(), 0
        for block in blocks:
            digest.update(block)
            size += len(block)
            self.advance(len(block))
        if (digest.hexdigest(), size) != (file.sha256, file.bytes):
            raise PublishMismatchError(
                f"{place.name}: {file.name} was read back with {size} bytes and the digest {digest.hexdigest()}, "
                f"instead of {file.bytes} bytes and {file.sha256}. Somebody else writes there, or the server damages "
                "what it stores; the next attempt pushes the file again."
            )
