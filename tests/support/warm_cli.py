"""The command line, imported once: each command of a page is a fork, which saves the half second that its start takes.

`python -m support.warm_cli SOCKET` serves; a client sends its arguments, folder, environment and standard streams, and
gets the exit code back as a line. See `dynalign` in `support/stand_ins/program.py`.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.processes import running

_STREAMS = 3
_LONGEST = 1 << 20


def serve(path: str) -> None:
    """Serve until killed."""
    from dynalign_operator.cli.main import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks: they tell their exit codes themselves
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _run(main, connection)
            connection.close()


def _run(main: object, connection: socket.socket) -> None:
    """Be the command that a client asks for; never returns."""
    request, streams, _, _ = socket.recv_fds(connection, _LONGEST, _STREAMS)
    arguments, folder, environment = json.loads(request)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    code: object = 1
    try:
        main()  # type: ignore[operator]
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(f"{code}\n".encode())
        os._exit(0)


@contextmanager
def warm_cli(folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A server for the commands of a test; gives its socket."""
    path = folder / "cli"
    command = ["env", *(f"{name}={value}" for name, value in environment.items())]
    with running(folder, [*command, sys.executable, "-m", "support.warm_cli", str(path)], "warm-cli") as process:
        while not path.exists():
            if process.poll() is not None:
                raise AssertionError((folder / "warm-cli.log").read_text())
            time.sleep(0.02)  # between two looks
        yield path


if __name__ == "__main__":
    serve(sys.argv[1])
