"""Foreign files in a folder of ours: found, removed, or kept from the beginning."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from dynalign_contract.files import NotAFileError, is_temporary, open_plain, remove, write_bytes
from dynalign_contract.layout import MANIFEST, WORK_MARK

_LONGEST_OWNER: Final = 4096


def find_strangers(folder: Path, listed: Iterable[str], known: Collection[str] = (MANIFEST, WORK_MARK)) -> list[str]:
    """Paths relative to `folder` of everything in it but the listed files, sorted.

    A listed name may also be that of a folder, all of whose contents then belong to it. The `known` files, and those
    that `atomic_path` has not finished, belong to every artifact. Links are not followed.
    """
    names = {*listed, *known}
    parents = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    return sorted(_strangers(folder, "", names, parents))


def shown_name(name: str) -> str:
    """A file's name as a message can quote it: with escapes where it has line ends, or bytes that are no text."""
    return name if name.isprintable() else ascii(name)


def clear_strangers(folder: Path, listed: Iterable[str], known: Collection[str] = (MANIFEST, WORK_MARK)) -> list[str]:
    """Remove what `find_strangers` finds, and unfinished files beside the listed ones; returns the strangers."""
    listed = list(listed)
    found = find_strangers(folder, listed, known)
    for name in found:
        remove(folder / name)
    for place in {(folder / name).parent for name in listed}:
        for path in place.glob(".*.tmp"):
            if is_temporary(path.name):
                remove(path)
    return found


def claim_folder(folder: Path, mark: str, owner: str) -> None:
    """Make a working folder belong to `owner`, which its file `mark` names; what another has left there is removed.

    Raises NotAFileError when the folder is a symbolic link, which is never followed.
    """
    if folder.is_symlink():
        raise NotAFileError(
            f"{folder} is a symbolic link, which dynalign does not follow. Remove it; the stage makes the folder anew."
        )
    if folder.exists() and _owner(folder / mark) != owner:
        remove(folder)
    write_bytes(folder / mark, owner.encode())


def _owner(mark: Path) -> str | None:
    try:
        with open_plain(mark) as file:
            return file.read(_LONGEST_OWNER).decode()
    except (FileNotFoundError, NotADirectoryError, NotAFileError, UnicodeDecodeError):
        return None


def _strangers(folder: Path, prefix: str, names: Collection[str], parents: Collection[str]) -> Iterable[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if path in names or (entry.is_file(follow_symlinks=False) and is_temporary(entry.name)):
                continue
            if is_folder and path in parents:
                yield from _strangers(folder / entry.name, path + "/", names, parents)
            else:
                yield path
