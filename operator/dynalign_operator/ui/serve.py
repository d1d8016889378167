"""The life of the page's server: port, browser, and the end by Ctrl-C."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from aiohttp import web

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.cli.terminal import say
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.ui.access import TOKEN_FIELD, Keys
from dynalign_operator.ui.files import load_assets
from dynalign_operator.ui.local_runs import LocalRuns
from dynalign_operator.ui.places import Places
from dynalign_operator.ui.server import PageServer

if TYPE_CHECKING:
    from dynalign_operator.clusters.kubernetes.run_source import KubeRunSource

LOOPBACK: Final = "127.0.0.1"
FIRST_PORT: Final = 8711
_PORTS: Final = 20
_SHUTDOWN_SECONDS: Final = 1.0


class PortBusyError(ClusterError):
    """No port to listen on."""

    exit_code = ExitCode.BAD_INPUT


async def serve_page(
    local: LocalRuns | None, cluster: "KubeRunSource | None", notes: tuple[str, ...], *, port: int | None, browser: bool
) -> int:
    """Serve the page until Ctrl-C or SIGTERM. Raises PortBusyError, ModuleNotFoundError."""
    keys = Keys()
    server = PageServer(Places(local, cluster, notes), load_assets(), keys)
    listening = bind(port)
    runner = web.AppRunner(
        server.application(), access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS
    )
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/"
        say(f"The page is at {address}?{TOKEN_FIELD}={keys.token}")
        say("Whoever has this address may do with your runs what you may. Ctrl-C ends it.", err=True)
        if browser and has_display():
            await asyncio.to_thread(webbrowser.open, f"{address}?{TOKEN_FIELD}={keys.opening}")
        with ending() as ended:
            await ended.wait()
    finally:
        await runner.cleanup()
    return 0


def bind(port: int | None) -> socket.socket:
    """A socket on loopback: at the port, or at the first that is free. Raises PortBusyError."""
    ports = range(FIRST_PORT, FIRST_PORT + _PORTS) if port is None else (port,)
    for number in ports:
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((LOOPBACK, number))
        except OSError as error:
            found.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            continue
        return found
    tried = f"port {port} is" if port is not None else f"ports {ports[0]} to {ports[-1]} are all"
    raise PortBusyError(f"{tried} in use, or may not be used; name another with --port.")


def has_display() -> bool:
    """Whether a browser would open in a window: one in this terminal would take it from the command."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


@contextlib.contextmanager
def ending() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C and SIGTERM set."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    for one in signals:
        loop.add_signal_handler(one, ended.set)
    try:
        yield ended
    finally:
        for one in signals:
            loop.remove_signal_handler(one)
