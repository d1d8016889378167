"""Finds the files of a source on this machine, and decides what their symbolic links may lead to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dynalign_contract.pod_paths import CLAIMS_MOUNT, RUN_MOUNT, SHARED_MEMORY_MOUNT, claims_folder
from dynalign_contract.sources import ClaimSource, PathSource

_KERNEL: Final = (Path("/proc"), Path("/sys"), Path("/dev"))
"""File systems that hold no models: their files describe the process and the machine."""
_MEMORY: Final = Path(SHARED_MEMORY_MOUNT)
_REMEDY: Final = "Replace the link by the file itself"


class LinkError(ValueError):
    """A symbolic link leads out of where the source lies; the message says which link, and what to do."""


@dataclass(frozen=True)
class LocatedSource:
    """A source's folder or file, and the folder that its symbolic links must not leave."""

    path: Path
    boundary: Path | None
    """None for a path that the user of this machine names themselves: it may be a link itself, and the links in it may
    lead within it and to the blobs of a Hugging Face cache."""

    def follow(self, path: Path) -> Path:
        """Resolve the symbolic links of the source's own path, or of a file below it.

        Raises LinkError when they lead out of the boundary, and OSError when the file is not there.
        """
        target = path.resolve(strict=True)
        if any(target.is_relative_to(folder) for folder in _KERNEL) and not target.is_relative_to(_MEMORY):
            raise LinkError(f"{path} leads to {target}, which is no file of a disk. {_REMEDY}.")
        if self.boundary is not None:
            if not target.is_relative_to(self.boundary.resolve()):
                raise LinkError(
                    f"{path} is, or lies behind, a symbolic link that leads out of {self.boundary}. {_REMEDY}."
                )
        elif path != self.path and not target.is_relative_to(self.path.resolve()) and not _is_blob(target):
            raise LinkError(f"{path} is a symbolic link to {target}, outside the folder. {_REMEDY}.")
        return target


def locate(source: ClaimSource | PathSource, environment: Mapping[str, str]) -> LocatedSource:
    """Where the source's folder or file is: a claim below its mount, a path as it is.

    The links of a claim must stay on it, as must those of a path on the run's volume.
    """
    if isinstance(source, ClaimSource):
        claim = claims_folder(environment) / source.claim
        return LocatedSource(claim / source.path, claim)
    path = Path(source.path)
    if path.is_relative_to(RUN_MOUNT):
        return LocatedSource(path, Path(RUN_MOUNT))
    if path.is_relative_to(CLAIMS_MOUNT) and len(path.parts) > 3:
        return LocatedSource(path, Path(*path.parts[:3]))
    return LocatedSource(path, None)


def _is_blob(target: Path) -> bool:
    """Whether the file lies in a Hugging Face cache: `models--org--name/blobs/<hash>`."""
    return target.parent.name == "blobs" and target.parent.parent.name.startswith(("models--", "datasets--"))
