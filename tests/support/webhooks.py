"""Receivers of notifications: an HTTP server on this machine whose answers a test decides."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """What a server was sent."""

    url: str = ""
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """Headers, names in lower case, and body of each request."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


async def accept(_: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


def always(status: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return answer


@asynccontextmanager
async def serve_receiver(answer: Answer = accept) -> AsyncIterator[Receiver]:
    """A server on 127.0.0.1."""
    receiver = Receiver()

    async def take(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        receiver.received.append(({name.lower(): value for name, value in request.headers.items()}, body))
        receiver.arrived.set()
        return await answer(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    receiver.url = f"http://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()
