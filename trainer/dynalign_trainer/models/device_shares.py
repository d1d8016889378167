"""The part of a pod's GPUs or cores that each of its engines has. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dynalign_contract.errors import BadConfigError
from dynalign_contract.settings import EngineSettings

_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Share:
    """What one engine's process may use."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that its libraries read when they are loaded."""
    cores: tuple[int, ...] = ()
    """Cores that it is bound to; none where it may use all."""


def share_gpus(settings: EngineSettings, count: int, visible: str | None) -> list[Share]:
    """`tensorParallel` GPUs for each engine of a pod that has `count`; `visible` is CUDA_VISIBLE_DEVICES.

    Raises BadConfigError when there are too few.
    """
    each = settings.tensor_parallel
    if count < each * settings.replicas:
        raise BadConfigError(
            f"spec.engine.replicas is {settings.replicas} and spec.engine.tensorParallel {each}, but this machine "
            f"offers {count} GPUs. Lower one of them, so that their product is at most {count}."
        )
    names = [name.strip() for name in visible.split(",")] if visible else [str(number) for number in range(count)]
    return [
        Share({_VISIBLE: ",".join(names[start : start + each])}) for start in range(0, each * settings.replicas, each)
    ]


def share_cores(settings: EngineSettings, cores: Sequence[int], threads: int) -> list[Share]:
    """Cores, and `threads` of OpenMP in all, for each engine on a CPU; there are no more engines than cores."""
    engines = min(settings.replicas, len(cores))
    each, own = max(1, threads // engines), len(cores) // engines
    return [
        Share({"OMP_NUM_THREADS": str(each)}, tuple(cores[start : start + own]))
        for start in range(0, own * engines, own)
    ]
