"""Host and port of http and https addresses."""

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    """In lower case, without a final dot; of an IPv6 address without brackets."""
    port: int


def parse_address(url: str) -> Address:
    """Host and port of an http or https URL. Raises ValueError for any other text."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no http or https address")
    return Address(parts.hostname.rstrip("."), parts.port or (443 if parts.scheme == "https" else 80))
