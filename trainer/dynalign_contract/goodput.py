"""Goodput: for what a run has used the time of its devices. docs/goodput.md defines every figure."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from dynalign_contract.base import Model

_DIGITS = 3


class DeviceUnit(StrEnum):
    """What counts as a device."""

    GPU = "GPU"
    POD = "Pod"
    """A pod, or a process of `dynalign run`: where the stages use no GPU."""


class DeviceTime(Model):
    """Seconds of devices. `reserved` is the sum of the other figures."""

    reserved: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Time from the start of each pod's container to its end."""
    useful: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Sampling, judging, training and evaluating whose result is in an artifact."""
    starting: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Time from the start of a container to its first useful work."""
    waiting: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The rest of the attempts that led to an artifact."""
    wasted: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Attempts that led to no artifact, without the useful work that a later attempt has kept."""
    unknown: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Attempts that led to an artifact and did not report what they used their time for."""

    def __add__(self, other: "DeviceTime") -> "DeviceTime":
        """The sum, figure by figure."""
        return DeviceTime(**{name: round(getattr(self, name) + getattr(other, name), _DIGITS) for name in self.figures})

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of all figures, `reserved` first."""
        return tuple(type(self).model_fields)

    @property
    def goodput(self) -> float | None:
        """Useful share of the reserved time whose use is known, 0 to 1; None if none is known."""
        known = self.reserved - self.unknown
        return min(1.0, self.useful / known) if known > 0 else None


class Goodput(Model):
    """Time of the devices that the iterations' stages have used; an attempt is counted when it has ended."""

    unit: DeviceUnit
    """What counts as a device: a GPU, or a pod where the stages use no GPU."""
    share: float | None = Field(default=None, ge=0, le=1)
    """Goodput: `seconds.useful` divided by `seconds.reserved` without `seconds.unknown`; absent if nothing is known."""
    wall_share: float | None = Field(default=None, ge=0, le=1)
    """Useful share of the wall-clock time from `since` to `until`, the time between stages included."""
    seconds: DeviceTime = DeviceTime()
    """Device-seconds."""
    useful_wall_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Wall-clock time of the useful work: pods that work side by side count once."""
    since: datetime
    """Start of the first pod."""
    until: datetime
    """End of the last pod."""


class StageGoodput(Model):
    """Time of the devices of one stage, all attempts together."""

    attempt: int = Field(default=0, ge=0)
    """Latest attempt that is counted."""
    job_creation_time: datetime | None = None
    """When the Job of that attempt was created; a Job that was removed is created again under its name."""
    seconds: DeviceTime = DeviceTime()
    """Device-seconds."""
