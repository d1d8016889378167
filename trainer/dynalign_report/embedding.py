"""Compression of rows into a page within a budget of bytes. Pure."""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

_GZIP: Final = 31
"""zlib's window bits for the gzip format, which browsers' DecompressionStream reads."""
_CLOSING: Final = 64
"""Bytes that are kept free for the end of the JSON array and gzip's trailer."""


@dataclass(frozen=True)
class Embedded:
    """Rows as gzip in base64, and how many of them found room."""

    data: str
    rows: int
    of: int
    """Rows that there were."""


def embed_rows(rows: Sequence[Any], budget: int) -> Embedded:
    """Compress a JSON array of the first rows that fit into `budget` bytes of base64; at least an empty array."""
    room = budget * 3 // 4 - _CLOSING
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    out = bytearray(packer.compress(b"["))
    count = 0
    for row in rows:
        before = packer.copy()
        data = packer.compress((b"," if count else b"") + _json(row)) + packer.flush(zlib.Z_SYNC_FLUSH)
        if len(out) + len(data) > room:
            packer = before
            continue
        out += data
        count += 1
    out += packer.compress(b"]") + packer.flush()
    return Embedded(base64.b64encode(bytes(out)).decode(), count, len(rows))


def embed_text(text: str) -> str:
    """A text as gzip in base64."""
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    return base64.b64encode(packer.compress(text.encode()) + packer.flush()).decode()


def interleave(orders: Iterable[Sequence[int]]) -> list[int]:
    """The members of several orders, the first of each, then the second of each, every one once."""
    columns = [list(order) for order in orders]
    longest = max(map(len, columns), default=0)
    ranks = (column[rank] for rank in range(longest) for column in columns if rank < len(column))
    return list(dict.fromkeys(ranks))


def _json(row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
