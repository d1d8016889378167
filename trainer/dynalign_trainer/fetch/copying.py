"""Copying model files: whole or absent, with progress in bytes, and stoppable between two blocks."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from dynalign_contract.files import atomic_path

Watch = Callable[[int, int], None]
"""Called now and then with (bytes done, bytes in all); may raise to stop."""

_BLOCK: Final = 32 << 20


def copy_files(sources: Mapping[str, Path], target: Path, watch: Watch) -> None:
    """Copy regular files into the folder `target`: name there -> file.

    Symbolic links are the caller's to resolve (`LocatedSource.follow`): a file that has become one since is not read.
    """
    total = sum(path.stat().st_size for path in sources.values())
    done = 0
    for name, source in sources.items():
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with (
            os.fdopen(descriptor, "rb") as read,
            atomic_path(target / name) as temporary,
            temporary.open("wb") as write,
        ):
            while block := read.read(_BLOCK):
                write.write(block)
                done += len(block)
                watch(done, total)


def replace_folder(temporary: Path, folder: Path) -> None:
    """Give a finished folder its name; it is removed instead when another process was first."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(temporary, ignore_errors=True)
