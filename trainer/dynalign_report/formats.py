"""Numbers as people read them: filters of the page's template."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from dynalign_contract.estimate import Estimate

_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")


def seconds(value: float | None) -> str:
    """`42 s`, `3:05 min`, `1:02 h`; `-` for None."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
    minutes = int(value // 60)
    return f"{minutes}:{int(value % 60):02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def size(value: float) -> str:
    """`16.2 kB`, in powers of 1000; empty for 0."""
    if not value:
        return ""
    step = 0
    while value >= 1000 and step < len(_UNITS) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.1f} {_UNITS[step]}" if step else f"{value:.0f} bytes"


def count(value: float) -> str:
    """`40,960`; empty for 0."""
    return f"{value:,.0f}" if value else ""


def estimate(value: Estimate | None) -> str:
    """`0.560 (0.430 to 0.690)`, large numbers without digits; `-` for None."""
    if value is None:
        return "-"
    return value.text(",.0f" if abs(value.value) >= 1000 else ".4g" if abs(value.value) < 0.01 else ".3f")


def percent(value: float) -> str:
    """Position on a scale from 0 to 1, as a CSS length."""
    return f"{100 * min(1.0, max(0.0, value)):.1f}%"


def share(value: float | None) -> str:
    """`41%`; `-` for None."""
    return "-" if value is None else f"{value:.0%}"


def short_digest(value: str) -> str:
    """The first twelve digits of a digest."""
    return value.removeprefix("sha256:")[:12]


FILTERS: Final[Mapping[str, Callable[..., str]]] = MappingProxyType(
    {
        "seconds": seconds,
        "size": size,
        "count": count,
        "estimate": estimate,
        "percent": percent,
        "share": share,
        "short_digest": short_digest,
    }
)
"""Name in the template -> function."""
