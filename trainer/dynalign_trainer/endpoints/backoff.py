"""How long to wait before a request is sent again. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff with full jitter, which keeps many clients from coming back at once (Brooker, 2015)."""

    first: float = 0.5
    """Upper end of the first wait, seconds; it doubles with every further try."""
    most: float = 30.0
    """Maximum wait of our own, seconds."""
    patience: float = 120.0
    """Maximum wait that a server may ask for, seconds."""

    def seconds(self, attempt: int, draw: float, asked: float | None) -> float:
        """The wait after failed try number `attempt`, from 1; `draw` is uniform in [0, 1).

        A server that asked for a wait gets at least that.
        """
        own = draw * min(self.most, self.first * 2.0 ** min(attempt - 1, 30))
        return own if asked is None else asked + min(own, 1.0)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a response's Retry-After asks for: a number or a date (RFC 9110, 10.2.3); None without a valid one.

    `headers` has lower-case names.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.replace(".", "", 1).isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())
