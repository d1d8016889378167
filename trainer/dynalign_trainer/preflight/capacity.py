"""What the conversion of quantised weights needs, and whether volume and memory have it."""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import MemoryFullError, VolumeFullError
from dynalign_trainer.preflight.dequantised import Method
from dynalign_trainer.runtime.memory import memory_limit

SHARD_BYTES: Final = 1 << 30
"""Size at which a file of the copy is written; it is held in memory until then."""

_BYTES: Final = 2
"""Size of a weight in BFloat16."""
_LIBRARIES: Final = 3 << 29
"""Bytes that the process holds before it converts anything: 1.5 GiB."""
_AT_ONCE: Final = {Method.MXFP4: 3}
"""Memory while a weight is converted, in sizes of the result, as measured; embeddings are copied as they are."""
_AT_ONCE_OTHERWISE: Final = 6
_LARGE: Final = 1 << 29
"""Sizes from this one on are told in GiB."""


@dataclass(frozen=True)
class Needs:
    """What a conversion needs, in bytes."""

    source: int
    """Size of the quantised weights, which lie on the volume until the copy is finished."""
    copy: int
    memory: int

    @property
    def disk(self) -> int:
        """Space on the volume for both."""
        return self.source + self.copy

    def describe(self, method: Method) -> str:
        """What is going to happen, for the person who wrote the run."""
        return (
            f"the weights are quantised ({method}): fetch converts {gib(self.source)} of them to {gib(self.copy)} in "
            "BFloat16, from which the policy is sampled, trained and exported. Until that is done the volume holds "
            f"both, {gib(self.disk)}; fetch needs about {gib(self.memory)} of memory"
        )


def estimate_needs(method: Method, model: Any, source: int, names: Collection[str] | None = None) -> Needs:
    """What the conversion of this model needs; the model may lie on the meta device.

    `names` are those of the copy's tensors; a mixture of experts has smaller ones in its files than in memory.
    """
    sizes = {name: parameter.numel() * _BYTES for name, parameter in model.named_parameters()}
    plain = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module}
    tables = {name for name, parameter in model.named_parameters() if id(parameter) in plain}
    at_once = _AT_ONCE.get(method, _AT_ONCE_OTHERWISE)
    held = [size * (1 if name in tables else at_once) for name, size in sizes.items() if names is None or name in names]
    return Needs(source=source, copy=sum(sizes.values()), memory=_LIBRARIES + SHARD_BYTES + max(held, default=0))


def check_capacity(needs: Needs, folder: Path) -> None:
    """Hold a conversion against the free space below `folder`, and against the container's or machine's memory.

    Raises VolumeFullError, which a later attempt may not meet, and MemoryFullError, which it would.
    """
    _check_space(needs, folder)
    memory = memory_limit()
    if memory < needs.memory:
        wanted = -(-needs.memory // 2**30)
        raise MemoryFullError(
            f"converting the weights to BFloat16 needs about {gib(needs.memory)} of memory, and the fetch stage has "
            f"{gib(memory)}. Raise memory in spec.stages.fetch.resources.limits to {wanted}Gi, or name the model in "
            "BFloat16 that the weights were made from in spec.model.uri."
        )


def gib(size: int) -> str:
    """A size for people."""
    return f"{size / 2**30:.1f} GiB" if size >= _LARGE else f"{size / 2**20:.1f} MiB"


def _check_space(needs: Needs, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    present = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if free + present < needs.disk:
        raise VolumeFullError(
            f"the volume below {folder} has {gib(free)} of space, and {gib(needs.disk - present)} are needed: "
            f"{gib(needs.source)} for the quantised weights, until they are converted, and {gib(needs.copy)} for the "
            "copy in BFloat16. Free space or enlarge spec.storage.size; the next attempt looks again."
        )
