"""`/healthz`, `/readyz` and `/metrics` of the operator."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

Check = Callable[[], str | None]
"""None when all is well, else what is wrong."""


@asynccontextmanager
async def serve_health(port: int, *, alive: Check, ready: Check) -> AsyncIterator[int]:
    """Serve the probes on all interfaces; yields the port."""
    app = web.Application()
    app.router.add_get("/healthz", _probe(alive))
    app.router.add_get("/readyz", _probe(ready))
    async with _serving(app, port) as served:
        yield served


@asynccontextmanager
async def serve_metrics(port: int, write: Callable[[], Awaitable[bytes]]) -> AsyncIterator[int]:
    """Serve `/metrics` on all interfaces, in the exposition format that `write` returns; yields the port."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=await write(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    async with _serving(app, port) as served:
        yield served


def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        wrong = check()
        return web.Response(text=wrong or "ok\n", status=200 if wrong is None else 503)

    return answer


@asynccontextmanager
async def _serving(app: web.Application, port: int) -> AsyncIterator[int]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, port=port, reuse_address=True)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
