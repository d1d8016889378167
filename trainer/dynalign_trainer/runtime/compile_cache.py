"""Passes what vLLM and torch compile from one pod to the next, as an archive on the run's volume.

Pods compile in folders of their own, because not all of the libraries write beside and rename. A stage begins with what
the archive holds and, when it has compiled more, puts a new archive in its place. All of this saves time and nothing
else: whatever goes wrong is logged, and the stage compiles for itself.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from dynalign_contract.pod_paths import Variable

log = logging.getLogger("dynalign.compiled")

_FOLDERS: Final = (Variable.COMPILED_BY_INDUCTOR, Variable.COMPILED_BY_TRITON, Variable.COMPILED_BY_VLLM)
_MOST_BYTES: Final = 4 << 30
"""Larger caches are not passed on: a pod's cache is bounded, and a volume is for the run's data."""
_HEAD: Final = 65
"""Bytes before the tar: its SHA-256 in hexadecimal, and a line feed."""
_ASK_SECONDS: Final = 20.0
_NO_GPU: Final = "cpu"

Contents = Mapping[str, int]
"""File, relative to the folder of all caches' archive -> its size in bytes."""


@contextmanager
def shared_compiled_code(environment: Mapping[str, str], *, publishes: bool) -> Iterator[None]:
    """Fill the pod's compile caches before the block; publish what the block has compiled, if it ends well.

    Does nothing where the environment names no archives. Of several pods that work side by side one should publish;
    when more do, one archive of them stays, whole.
    """
    archives = environment.get(Variable.COMPILED_ARCHIVES)
    folders = {name.lower(): Path(environment[name]) for name in _FOLDERS if environment.get(name)}
    if not archives or not folders:
        yield
        return
    archive = Path(archives) / f"{_key(environment)}.tar"
    with _best_effort("read", archive):
        _fill(archive, folders)
    before = _contents(folders)
    yield
    if publishes:
        with _best_effort("written", archive):
            _publish(archive, folders, before)


def own_caches(environment: Mapping[str, str], suffix: str) -> dict[str, str]:
    """Variables that give a further process caches of its own beside this one's, with what these hold by now.

    Not all of the libraries write beside and rename, so of several processes each needs its own folders.
    """
    own = {name: f"{environment[name]}-{suffix}" for name in _FOLDERS if environment.get(name)}
    for name, folder in own.items():
        with _best_effort("copied", Path(folder)):
            if Path(environment[name]).is_dir() and not Path(folder).exists():
                shutil.copytree(environment[name], folder)
    return own


@contextmanager
def _best_effort(what: str, archive: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        log.warning("compiled code could not be %s (%s: %s); it is compiled again", what, archive, error)


def _key(environment: Mapping[str, str]) -> str:
    """What compiled code depends on beside what its own names say: the image, with its libraries, and the GPU."""
    return hashlib.sha256(f"{environment.get(Variable.IMAGE, '')}\n{_gpu_name()}".encode()).hexdigest()[:16]


def _gpu_name() -> str:
    """The first GPU's name, asked for without CUDA, which a stage must not initialise this early."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=True)
        return next(iter(found.stdout.splitlines()), _NO_GPU).strip()
    return _NO_GPU


def _contents(folders: Mapping[str, Path]) -> Contents:
    return {
        f"{name}/{path.relative_to(folder)}": path.stat().st_size
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def _fill(archive: Path, folders: Mapping[str, Path]) -> None:
    """Unpack the archive beside the caches, then give each cache its place. An empty folder is replaced.

    Raises OSError, TarError, or ValueError for an archive that is not what its first line says. A cache that holds
    something stays as it is.
    """
    if not archive.is_file():
        return
    parent = next(iter(folders.values())).parent
    parent.mkdir(parents=True, exist_ok=True)
    with archive.open("rb") as file, tempfile.TemporaryDirectory(dir=parent, prefix=".compiled-") as unpacked:
        written = file.readline(_HEAD).decode("ascii").strip()
        if written != hashlib.file_digest(file, "sha256").hexdigest():
            raise ValueError("it is damaged")
        file.seek(_HEAD)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            _unpack(tar, Path(unpacked))
        for name, folder in folders.items():
            if (Path(unpacked) / name).is_dir():
                folder.parent.mkdir(parents=True, exist_ok=True)
                (Path(unpacked) / name).rename(folder)  # takes the place of an empty folder, and of no other
    log.info("compiled code was taken over from %s", archive)


def _unpack(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpack regular files below a folder. Raises ValueError for any other member, or one that would lie elsewhere.

    `TarFile.extractall` has its filter against such members since Python 3.11.4 only.
    """
    for member in tar:
        path = PurePosixPath(member.name)
        content = tar.extractfile(member) if member.isfile() else None
        if content is None or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"it holds {member.name!r}, which is no file of a cache")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)


def _publish(archive: Path, folders: Mapping[str, Path], before: Contents) -> None:
    """Put an archive of all caches in the place of the present one, if there is anything new. Raises OSError."""
    found = _contents(folders)
    if found == before or sum(found.values()) > _MOST_BYTES:
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    # Not a name with the process id: every pod's stage has the same.
    descriptor, name = tempfile.mkstemp(dir=archive.parent, prefix=f".{archive.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            file.write(b" " * (_HEAD - 1) + b"\n")
            with tarfile.open(fileobj=file, mode="w:") as tar:
                for path in found:
                    folder, _, rest = path.partition("/")
                    tar.add(folders[folder] / rest, arcname=path, recursive=False)
            file.seek(_HEAD)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            file.write(digest.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(archive)
    finally:
        temporary.unlink(missing_ok=True)
    log.info("compiled code was passed on in %s", archive)
