"""Reading an answer that somebody else decides about: so many bytes, as they come, from where they were asked for."""

from collections.abc import AsyncIterator
from typing import Final

import aiohttp

from dynalign_operator.clusters.errors import ClusterError

PLAIN: Final = {"Accept-Encoding": "identity"}
"""Headers of a request whose answer is wanted as it is."""
_OK: Final = 200
_LONGEST_LINE: Final = 2**16
"""Bytes of a line of a log that are shown as one."""


class UnwantedAnswerError(ClusterError):
    """The answer is not what was asked for: a redirect, an error, compressed, or too long."""


async def read_bounded(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The body, or UnwantedAnswerError. Redirects and decompression must be off, so that neither has happened yet."""
    if answer.status != _OK:
        raise UnwantedAnswerError(f"the answer has the status {answer.status}")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnwantedAnswerError("the answer is compressed, which was not asked for")
    body = bytearray()
    while chunk := await answer.content.read(most_bytes + 1 - len(body)):
        body += chunk
        if len(body) > most_bytes:
            raise UnwantedAnswerError(f"the answer is longer than {most_bytes} bytes")
    return bytes(body)


async def read_lines(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """Lines of a text without their ends; one that is longer than 64 KiB comes in pieces."""
    left = b""
    async for chunk in content.iter_any():
        *lines, left = (left + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
        if len(left) > _LONGEST_LINE:
            yield left.decode(errors="replace")
            left = b""
    if left:
        yield left.decode(errors="replace")
