"""Safetensors files that are written one after another, with no more than one of them in memory."""

import json
from pathlib import Path
from typing import Any, Final

from dynalign_contract.files import atomic_path, write_bytes
from dynalign_trainer.models.files import INDEX, WEIGHTS

_READABLE: Final = 0o644
"""safetensors leaves its files to the owner alone, and others may serve the model."""


class Shards:
    """The weights of a model folder, in files of about `limit` bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._held: dict[str, Any] = {}
        self._held_bytes = 0
        self._written: list[tuple[Path, list[str]]] = []
        self._total = 0

    def add(self, name: str, tensor: Any) -> None:
        """Take a contiguous tensor; writes a file when enough are there."""
        self._held[name] = tensor
        self._held_bytes += tensor.nbytes
        if self._held_bytes >= self._limit:
            self._write()

    def finish(self) -> None:
        """Write the rest, give the files their final names, and write the index where there are several."""
        self._write()
        count = len(self._written)
        places: dict[str, str] = {}
        for number, (path, names) in enumerate(self._written, start=1):
            final = WEIGHTS if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
            path.replace(self._folder / final)
            places |= dict.fromkeys(names, final)
        if count > 1:
            index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(places.items()))}
            write_bytes(self._folder / INDEX, json.dumps(index, indent=2).encode())

    def _write(self) -> None:
        from safetensors.torch import save_file

        if not self._held:
            return
        path = self._folder / f"part-{len(self._written):05d}.safetensors"
        with atomic_path(path) as temporary:
            save_file(self._held, temporary, metadata={"format": "pt"})
            temporary.chmod(_READABLE)
        self._written.append((path, list(self._held)))
        self._total += self._held_bytes
        self._held, self._held_bytes = {}, 0
