"""One request to a webhook: where it may go, how long it may take, and what its answer means."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from dynalign_contract.addresses import describe_forbidden

TIMEOUT_SECONDS: Final = 15.0
"""For the whole request, from the look-up of the name to the answer's head."""
_GONE: Final = 410


class Answer(Enum):
    """What a webhook's answer means."""

    ACKNOWLEDGED = auto()
    AGAIN = auto()
    NEVER = auto()


@dataclass(frozen=True)
class Reply:
    """The answer, and why it is no acknowledgement."""

    answer: Answer
    why: str = ""


class GuardedResolver(AbstractResolver):
    """Looks names up, and leaves out addresses to which nothing may be sent."""

    def __init__(self, inner: AbstractResolver, *, loopback: bool) -> None:
        self._inner, self._loopback = inner, loopback

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses that may be asked. Raises OSError where there is none."""
        found = await self._inner.resolve(host, port, family)
        reasons = [describe_forbidden(str(address["host"]), loopback=self._loopback) for address in found]
        allowed = [address for address, reason in zip(found, reasons, strict=True) if reason is None]
        if not allowed:
            reason = next((reason for reason in reasons if reason), "no address")
            raise OSError(errno.EHOSTUNREACH, f"the name {host} leads to {reason}")
        return allowed

    async def close(self) -> None:
        """Let go of the resolver within."""
        await self._inner.close()


class WebhookSender:
    """Posts to webhooks; made by `open_sender`."""

    def __init__(self, session: aiohttp.ClientSession, *, loopback: bool) -> None:
        self._session, self._loopback = session, loopback

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Post once. Never raises for anything that a server or the network does."""
        if reason := _forbidden_literal(url, loopback=self._loopback):
            return Reply(Answer.NEVER, f"its host is {reason}")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self._session.post(url, data=body, headers=headers, allow_redirects=False)
                status = answer.status
                answer.close()
        except TimeoutError:
            return Reply(Answer.AGAIN, f"no answer within {TIMEOUT_SECONDS:.0f} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Reply(Answer.AGAIN, f"{type(error).__name__}: {error}")
        if 200 <= status < 300:
            return Reply(Answer.ACKNOWLEDGED)
        return Reply(Answer.NEVER if status == _GONE else Answer.AGAIN, f"the answer has the status {status}")


@asynccontextmanager
async def open_sender(*, loopback: bool) -> AsyncIterator[WebhookSender]:
    """A sender; `loopback` allows this machine's own addresses. Takes no proxy, keeps no cookies and no connections."""
    resolver = GuardedResolver(aiohttp.ThreadedResolver(), loopback=loopback)
    connector = aiohttp.TCPConnector(resolver=resolver, force_close=True, use_dns_cache=False)
    options: dict[str, Any] = {"cookie_jar": aiohttp.DummyCookieJar(), "auto_decompress": False}
    async with aiohttp.ClientSession(connector=connector, **options) as session:
        yield WebhookSender(session, loopback=loopback)


def _forbidden_literal(url: str, *, loopback: bool) -> str | None:
    """What is wrong with a host that is an address, which is never looked up; None for a name, and for a good one."""
    try:
        return describe_forbidden(urlsplit(url).hostname or "", loopback=loopback)
    except ValueError:
        return None
