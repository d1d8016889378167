"""What happens to files: by disks, by pods on nodes that were cut off, by people."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import describe_file, read_listed, write_manifest
from dynalign_contract.strangers import shown_name

Damage = Callable[[Path, random.Random], str | None]
"""Damages a folder of an artifact. Returns what the refusal must name, None where there is nothing to damage so."""

_STRANGERS: Final = (
    *("part-00099.parquet", "zz.safetensors", "adapter_model.safetensors", "added_tokens.json", "chat_template.jinja"),
    *("generation_config.json", "tokenizer.model", ".hidden", ".x.tmp", ".prompts.parquet.7.tmp.bak", "manifest.json~"),
    *("Manifest.json", "core.1234", "lost+found", "nested/part-00000.parquet", " ", "ünï", "a\nb"),
)


def flip(folder: Path, rng: random.Random) -> str | None:
    """One bit of a file, the manifest included."""
    path = _any_file(folder, rng, least=1)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return path.name


def cut(folder: Path, rng: random.Random) -> str | None:
    """The end of a file is missing, or all of it."""
    path = _any_file(folder, rng, least=1)
    data = path.read_bytes()
    path.write_bytes(data[: rng.choice([0, rng.randrange(len(data)), len(data) - 1])])
    return path.name


def append(folder: Path, rng: random.Random) -> str | None:
    """Something follows the end of a file."""
    path = _any_file(folder, rng)
    path.write_bytes(path.read_bytes() + rng.choice([b"\0", b"\n", b" ", rng.randbytes(100)]))
    return path.name


def delete(folder: Path, rng: random.Random) -> str | None:
    """A file is missing."""
    path = _any_file(folder, rng)
    path.unlink()
    return path.name


def rename(folder: Path, rng: random.Random) -> str | None:
    """A file has another name."""
    path = _any_file(folder, rng)
    path.rename(path.with_name(rng.choice([path.name.upper(), path.name + "~", "." + path.name])))
    return path.name


def swap(folder: Path, rng: random.Random) -> str | None:
    """Two files have each other's contents."""
    paths = [path for path in _files(folder) if path.name != MANIFEST]
    pairs = [(a, b) for a in paths for b in paths if a < b and a.read_bytes() != b.read_bytes()]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(other)
    b.write_bytes(one)
    return folder.name


def exchange(folder: Path, rng: random.Random) -> str | None:
    """A link, a pipe or a folder has the name of a file; what a link leads to may have the right contents."""
    path = _any_file(folder, rng)
    aside = folder.parent.parent.parent / f"aside-{rng.randrange(10**9)}"
    path.rename(aside)
    match rng.choice(["link", "dangling", "endless", "pipe", "folder"]):
        case "link":
            path.symlink_to(aside)
        case "dangling":
            path.symlink_to("nowhere")
        case "endless":
            path.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    return path.name


def add(folder: Path, rng: random.Random) -> str | None:
    """A file, link, pipe or folder that no manifest lists."""
    path = folder / rng.choice(_STRANGERS)
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    some = rng.choice(_files(folder))
    match rng.choice(["copy", "copy", "empty", "link", "pipe", "folder"]):
        case "copy":
            shutil.copyfile(some, path)
        case "empty":
            path.touch()
        case "link":
            path.symlink_to(some)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    return shown_name(path.relative_to(folder).parts[0])


def forge(folder: Path, rng: random.Random) -> str | None:
    """A file is another, and the manifest fits it: only the digest in the run's status tells."""
    manifest = read_listed(folder)
    file = rng.choice(manifest.files)
    (folder / file.name).write_bytes(rng.randbytes(rng.randrange(1, 200)))
    forged = tuple(describe_file(folder, f.name, f.rows) if f is file else f for f in manifest.files)
    write_manifest(folder, manifest.model_copy(update={"files": forged}))
    return "is not the artifact that the run recorded"


IN_FOLDERS: Final[tuple[Damage, ...]] = (flip, flip, cut, append, delete, rename, swap, exchange, add, add)
"""Found by the folder alone."""


def damage_shards(folder: Path, rng: random.Random) -> tuple[str, str]:
    """Shards are exchanged, missing or too many. Returns the damage's name, and what the refusal must name."""
    first, second, *_ = sorted(folder.iterdir())
    match rng.choice(["exchanged", "missing", "added", "beside"]):
        case "exchanged":
            first.rename(folder / "aside")
            second.rename(first)
            (folder / "aside").rename(second)
            return "shards exchanged", folder.name
        case "missing":
            shutil.rmtree(second)
            return "shard missing", second.name
        case "added":
            shutil.copytree(first, folder / "shard-099")
            return "shard added", "shard-099"
        case _:
            (folder / "part-00000.parquet").touch()
            return "file beside shards", "part-00000.parquet"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _any_file(folder: Path, rng: random.Random, least: int = 0) -> Path:
    return rng.choice([path for path in _files(folder) if path.stat().st_size >= least])
