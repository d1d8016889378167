"""Accelerators with the figures of their data sheets, for estimates and for the utilisation of training."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

GIB: Final = 2**30

_OTHERS: Final = frozenset({"PCIE", "NVL", "MIG"})
"""Words in the names of variants and parts of accelerators, whose peak is another one."""


class Hardware(StrEnum):
    """Kinds of accelerators whose figures are known."""

    H100 = "H100"
    H200 = "H200"
    B200 = "B200"
    A100 = "A100"
    L40S = "L40S"
    MI300X = "MI300X"
    CPU = "CPU"


@dataclass(frozen=True)
class Accelerator:
    """One accelerator, or the cores of one machine."""

    name: str
    memory_gib: float
    bandwidth: float
    """Bytes a second, of its memory."""
    flops: float
    """Dense BFloat16 operations a second; of a CPU those of Float32 that the stages reach."""
    value_bytes: int
    """Bytes of a weight or an activation in the number format that `engine.dtype: Auto` takes there."""
    source: str

    @property
    def is_cpu(self) -> bool:
        """Whether these are cores of a machine, which compute in Float32."""
        return self.value_bytes > 2


ACCELERATORS: Final = {
    Hardware.H100: Accelerator("H100 SXM", 80, 3.35e12, 989e12, 2, "data sheet"),
    Hardware.H200: Accelerator("H200 SXM", 141, 4.8e12, 989e12, 2, "data sheet"),
    Hardware.B200: Accelerator("B200", 180, 8.0e12, 2250e12, 2, "data sheet"),
    Hardware.A100: Accelerator("A100 SXM 80 GB", 80, 2.04e12, 312e12, 2, "data sheet"),
    Hardware.L40S: Accelerator("L40S", 48, 0.864e12, 362e12, 2, "data sheet"),
    Hardware.MI300X: Accelerator("MI300X", 192, 5.3e12, 1307e12, 2, "data sheet"),
    Hardware.CPU: Accelerator(
        "2 CPU cores", 16, 20e9, 0.3e12, 4, "operations fitted to the whole of an earlier demo, 361 s"
    ),
}


def accelerator_of(device: str) -> Accelerator | None:
    """The accelerator that a driver calls so ("NVIDIA H200"); None for one whose peak is not known here."""
    words = frozenset(re.split(r"[\s-]+", device.upper()))
    if words & _OTHERS:
        return None
    return next((ACCELERATORS[kind] for kind in Hardware if kind in words and kind is not Hardware.CPU), None)
