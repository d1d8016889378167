"""Work in a process of its own, which ends at once when the stage is asked to stop."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final

from dynalign_contract.console import print_traceback
from dynalign_contract.errors import StageError

_LOOK_EVERY_SECONDS: Final = 0.2


def run_apart(work: Callable[..., None], arguments: tuple[Any, ...], look: Callable[[], None]) -> None:
    """Call `work(*arguments)` in a fresh process, and `look` now and then; what `look` raises ends it.

    A StageError or OSError of the work is raised here, anything else as RuntimeError with its type and text; its
    traceback is in the log.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        while not receiver.poll(_LOOK_EVERY_SECONDS):
            look()
        look()  # SIGTERM to the whole group ends the work too, which then is no failure
        error = _receive(receiver)
        process.join()
    finally:
        process.kill()
    if error is not None:
        raise error
    if process.exitcode:
        name = getattr(work, "__name__", str(work)).strip("_")
        raise RuntimeError(f"{name}{arguments} failed with exit code {process.exitcode}; the log above says why")


def _receive(receiver: "Connection[Any, Any]") -> Exception | None:
    try:
        error: Exception | None = receiver.recv()
    except EOFError:
        return None
    return error


def _work(sender: "Connection[Any, Any]", work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    try:
        work(*arguments)
    except StageError as error:
        sender.send(error)
    except OSError as error:
        print_traceback(error)
        sender.send(_sendable(error))
    except Exception as error:  # noqa: BLE001 - it goes on in the process that asked for the work
        print_traceback(error)
        sender.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _sendable(error: OSError) -> OSError:
    """The error as one of Python's own: those of libraries may not be made again from their arguments."""
    return error if type(error).__module__ == "builtins" else OSError(error.errno, str(error), error.filename)
