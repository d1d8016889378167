"""How an endpoint is reached: the address that is connected to is the one that was checked; answers are bounded."""

import asyncio
import ipaddress
import os
import socket
import zlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import httpx

from dynalign_contract.addresses import LOOPBACK_URL, describe_forbidden, matches
from dynalign_contract.preload import WORKDIR_VARIABLE

LONGEST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of a decompressed answer: thousands of tokens with their alternatives."""
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
_ENCODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})


class ForbiddenAddressError(Exception):
    """A name leads to an address that is never connected to."""

    def __init__(self, address: str, what: str) -> None:
        super().__init__(f"{address}, {what}")


class AnswerTooLongError(Exception):
    """A server's answer is longer than `LONGEST_ANSWER`."""


class GuardedTransport(httpx.AsyncBaseTransport):
    """Resolves a name, looks at its addresses, and connects to one of those, under the name for TLS and HTTP.

    The name is not resolved a second time, so that no answer of a DNS server can differ between the look and the
    connection.
    """

    def __init__(self, *, loopback: bool) -> None:
        """`loopback` allows this machine's own addresses."""
        self._loopback = loopback
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first address that takes it. Raises ForbiddenAddressError or httpx.TransportError."""
        host = request.url.host
        failure: httpx.TransportError = httpx.ConnectError(f"the name {host} has no address", request=request)
        for address in await self._look_up(request):
            extensions = dict(request.extensions)
            if not _is_address(host):
                extensions["sni_hostname"] = host
            sent = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
            try:
                return await self._inner.handle_async_request(sent)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()

    async def _look_up(self, request: httpx.Request) -> list[str]:
        host, port = request.url.host, request.url.port or {"https": 443}.get(request.url.scheme, 80)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"the name {host} cannot be resolved: {error}", request=request) from error
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        reasons = {address: describe_forbidden(address, loopback=self._loopback) for address in addresses}
        allowed = [address for address in addresses if reasons[address] is None]
        if addresses and not allowed:
            raise ForbiddenAddressError(addresses[0], reasons[addresses[0]] or "")
        return allowed


def open_transport(url: str, environment: Mapping[str, str], *, in_the_clear: bool) -> httpx.AsyncBaseTransport:
    """How to reach a URL: through the proxy that the environment names for it, or directly.

    Nothing that is sent `in_the_clear` with a key, and nothing that goes to this very machine, takes a proxy.
    """
    proxy = None if in_the_clear or matches(LOOPBACK_URL, url) else find_proxy(url, environment)
    return (
        GuardedTransport(loopback=not in_a_pod(environment)) if proxy is None else httpx.AsyncHTTPTransport(proxy=proxy)
    )


def in_a_pod(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a cluster's pod runs this stage, not `dynalign run`, which may itself run in a pod."""
    return "KUBERNETES_SERVICE_HOST" in environment and WORKDIR_VARIABLE not in environment


def find_proxy(url: str, environment: Mapping[str, str]) -> str | None:
    """The proxy for a URL, by the usual variables in upper or lower case; None for a direct connection.

    NO_PROXY may name hosts, domains, networks (`10.0.0.0/8`) and `*`.
    """
    variables = {name.lower(): value for name, value in sorted(environment.items()) if value}
    parts = urlsplit(url)
    proxy = variables.get(f"{parts.scheme}_proxy") or variables.get("all_proxy")
    entries = [entry.strip() for entry in variables.get("no_proxy", "").split(",") if entry.strip()]
    if proxy is None or any(_exempts(entry, parts.hostname or "", parts.port) for entry in entries):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


async def read_answer(response: httpx.Response) -> bytes:
    """The decompressed body of a streamed response.

    Raises AnswerTooLongError, and ValueError for what cannot be decompressed.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", *_ENCODINGS}:
        raise ValueError(f"it is encoded as {encoding[:20]!r}, which was not asked for")
    decoder = zlib.decompressobj(_GZIP_OR_ZLIB) if encoding in _ENCODINGS else None
    body, read = bytearray(), 0
    async for piece in response.aiter_raw():
        read += len(piece)
        try:
            body += piece if decoder is None else decoder.decompress(piece, LONGEST_ANSWER + 1 - len(body))
        except zlib.error as error:
            raise ValueError(f"it cannot be decompressed: {error}") from error
        if max(len(body), read) > LONGEST_ANSWER:
            raise AnswerTooLongError
    return bytes(body)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _exempts(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY is about a host."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return _is_address(host) and ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, _, number = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
    domain = name.strip("[]").removeprefix("*").lstrip(".").lower()
    fits = host == domain or (host.endswith(f".{domain}") and not _is_address(host))
    return fits and (not number or number == str(port))
