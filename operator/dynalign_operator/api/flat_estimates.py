"""Iterations as version 0.1.0 stored them: `winRate`, `winRateLow` and `winRateHigh` in place of one object.

A plain number in place of an `Estimate` is accepted by `Estimate` itself.
"""

from collections.abc import Mapping
from typing import Final

_ESTIMATES: Final = ("winRate", "capability", "capabilityDelta")


def join_flat_estimates(data: object) -> object:
    """The stored iteration with each flat estimate as an object; other data as it is."""
    if not isinstance(data, Mapping) or not any(isinstance(data.get(name), int | float) for name in _ESTIMATES):
        return data
    joined = dict(data)
    for name in _ESTIMATES:
        low, high = (joined.pop(f"{name}{end}", None) for end in ("Low", "High"))
        if isinstance(joined.get(name), int | float):
            joined[name] = {"value": joined[name], "low": low, "high": high}
    return joined
