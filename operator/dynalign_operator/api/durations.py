"""Time spans as users write them: `90s`, `30m`, `72h`, `1d12h`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_SECONDS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

DURATION_PATTERN: Final = r"^([0-9]{1,10}[dhms])+$"
"""Ten digits: in CEL the seconds of such a text never leave 64 bits."""

MAX_DURATION_SECONDS: Final = 2**31 - 1
"""What Kubernetes holds of seconds (`ttlSecondsAfterFinished` is an int32), and far below what a clock holds."""


def count_seconds(text: str) -> int:
    """Seconds of a text that matches `DURATION_PATTERN`, without any limit."""
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([dhms])", text))


def parse_duration(text: str) -> timedelta:
    """A duration as a timedelta; never more than `MAX_DURATION_SECONDS`, so that every date plus it is a date."""
    return timedelta(seconds=min(count_seconds(text), MAX_DURATION_SECONDS))


def after(moment: datetime, duration: timedelta) -> datetime:
    """`moment` plus `duration`; the last possible moment where the sum is beyond what a datetime holds."""
    try:
        return moment + duration
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def seconds_in_cel(this: str) -> str:
    """CEL for the seconds of the duration `this`."""
    return " + ".join(
        f"{this}.findAll('[0-9]+{unit}').map(part, int(part.replace('{unit}', '')) * {factor}).sum()"
        for unit, factor in _SECONDS.items()
    )
