"""Build contexts of the images: what a Dockerfile copies, as an archive from which an image is built alone."""

import re
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from release.errors import ReleaseError

IMAGES: Final = ("operator", "trainer")
_COPY: Final = re.compile(r"^COPY (?!--from)(.+) \S+$", re.MULTILINE)


def context_name(image: str, version: str) -> str:
    """File name of an image's context."""
    return f"dynalign-{image}-{version}-context.tar.gz"


def build_context(root: Path, image: str, target: Path) -> None:
    """Write the tracked files that the image's ignore file lets in, and its Dockerfile. Raises ReleaseError."""
    dockerfile = Path("images", image, "Dockerfile")
    allowed = read_allowed(root / f"{dockerfile}.dockerignore")
    tracked = subprocess.run(["git", "-C", str(root), "ls-files"], capture_output=True, text=True, check=True)
    files = [name for name in tracked.stdout.splitlines() if is_below(name, [*allowed, str(dockerfile)])]
    lost = [source for source in copied(root / dockerfile) if not any(is_below(name, [source]) for name in files)]
    if lost:
        raise ReleaseError(f"{dockerfile} copies {', '.join(lost)}, which {dockerfile.name}.dockerignore keeps out")
    with tarfile.open(target, "w:gz") as archive:
        for name in files:
            archive.add(root / name, name)


def read_allowed(ignore_file: Path) -> list[str]:
    """Paths that an ignore file lets in after it has kept out everything. Raises ReleaseError where it has not."""
    lines = [line for line in ignore_file.read_text().splitlines() if line and not line.startswith("#")]
    if lines[:1] != ["*"]:
        raise ReleaseError(f"{ignore_file} does not begin with *, so the context would be the whole repository")
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def copied(dockerfile: Path) -> list[str]:
    """Paths of the repository that a Dockerfile copies into its stages."""
    sources = [source for line in _COPY.findall(dockerfile.read_text()) for source in line.split()]
    return list(dict.fromkeys(source.rstrip("/") for source in sources))


def is_below(name: str, folders: Sequence[str]) -> bool:
    """Whether a path is one of these paths or lies in one of them."""
    return any(name == folder or name.startswith(f"{folder}/") for folder in folders)
