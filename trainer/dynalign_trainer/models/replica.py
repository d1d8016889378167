"""`python -m dynalign_trainer.models.replica`: one of several engines that a stage feeds, in a process of its own.

Its GPUs, or its cores, are all that this process sees. It ends with the stage's process, however that ends.
"""

import argparse
import copy
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

from dynalign_contract.console import configure_logging, print_traceback
from dynalign_contract.errors import StageError
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.engine_plan import EnginePlan
from dynalign_trainer.models.engine_start import import_libraries
from dynalign_trainer.models.replica_messages import (
    Add,
    Answer,
    Call,
    DrawnPiece,
    Failed,
    Forget,
    GiveUp,
    Open,
    Order,
    Progress,
    Ready,
    Reply,
)
from dynalign_trainer.models.sampler import Sampler
from dynalign_trainer.models.vllm_engine import start_vllm_engine
from dynalign_trainer.runtime.lifetime import die_with_parent

_TELL_EVERY_SECONDS: Final = 0.02


class _GivenUpError(Exception):
    """The stage does not want the answer any more."""


class _StageGoneError(Exception):
    """The stage has closed the connection, or has ended."""


class Replica:
    """Serves one connection with one engine."""

    def __init__(self, connection: Connection, engine: Engine) -> None:
        self._connection, self._engine = connection, engine
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        """What has arrived; None once the stage has gone. Read at once, so that no stage waits for a step to end."""
        self._told = 0.0
        threading.Thread(target=self._receive, daemon=True, name="orders").start()

    def serve(self) -> None:
        """Obey orders until the stage has gone."""
        try:
            while True:
                match self._next():
                    case Call() as call:
                        self._answer(call)
                    case Open() as opened:
                        self._sample(opened)
                    case Forget():
                        self._engine.forget_prefixes()
                    case _:  # of a call or a sampler that has ended
                        continue
        except _StageGoneError:
            return

    def _answer(self, call: Call) -> None:
        def watch(finished: int, _total: int, rate: float) -> None:
            if self._next_if_any() == GiveUp(call.number):  # nothing else is sent during a call
                raise _GivenUpError
            self._tell(Progress(call.number, finished, rate))

        try:
            value = getattr(self._engine, call.method)(**call.arguments, watch=watch)
        except _GivenUpError:
            return
        except _StageGoneError:
            raise
        except Exception as error:  # noqa: BLE001 - the stage decides what it means
            self._send(_failure(call.number, error))
        else:
            self._send(Answer(call.number, value, self._engine.cached_tokens))

    def _sample(self, opened: Open) -> None:
        try:
            with self._engine.sampler(opened.policy) as sampler:
                self._draw(opened.number, sampler)
        except _GivenUpError:
            self._send(Answer(opened.number, [], self._engine.cached_tokens))
        except _StageGoneError:
            raise
        except Exception as error:  # noqa: BLE001 - the stage decides what it means
            self._send(_failure(opened.number, error))

    def _draw(self, number: int, sampler: Sampler) -> None:
        """Draw what is asked for until the sampler is given up."""
        groups: dict[int, int] = {}

        def obey(order: Order) -> None:
            if isinstance(order, Add):
                add = sampler.add_alone if order.is_alone else sampler.add
                groups[add(order.prompts, order.sampling, order.seeds)] = order.group
            elif order == GiveUp(number):
                raise _GivenUpError

        def between_steps() -> None:
            while (order := self._next_if_any()) is not None:
                obey(order)
            self._tell(Progress(number, sampler.ended, sampler.rate))

        while True:
            if not sampler.underway:
                obey(self._next())
            for drawn in sampler.advance(between_steps):
                self._send(Progress(number, sampler.ended, sampler.rate))
                self._send(DrawnPiece(number, groups[drawn.number], drawn.samples))

    def _tell(self, progress: Progress) -> None:
        """Send progress, unless some has just been sent."""
        if time.monotonic() - self._told >= _TELL_EVERY_SECONDS:
            self._send(progress)

    def _send(self, reply: Reply) -> None:
        try:
            self._connection.send(reply)
        except OSError as error:
            raise _StageGoneError from error
        self._told = time.monotonic()

    def _next(self) -> Order:
        order = self._orders.get()
        if order is None:
            raise _StageGoneError
        return order

    def _next_if_any(self) -> Order | None:
        try:
            order = self._orders.get_nowait()
        except queue.Empty:
            return None
        if order is None:
            raise _StageGoneError
        return order

    def _receive(self) -> None:
        try:
            while True:
                self._orders.put(self._connection.recv())
        except (EOFError, OSError):
            self._orders.put(None)


def _failure(number: int, error: Exception) -> Failed:
    """What the stage is told of an error: the error itself. The log has the traceback of one that nobody foresaw."""
    if not isinstance(error, StageError):
        print_traceback(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = (
        f"{'/'.join(frames[-1].filename.split('/')[-2:])}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    )
    return Failed(number, _as_sent(error), place)


def _as_sent(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent."""
    try:
        pickle.dumps(error)
        copy.copy(error)  # made anew as the other process does
    except Exception:  # noqa: BLE001 - classes of libraries fail as they like
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def main(argv: Sequence[str] | None = None) -> None:
    """Start the engine that the stage describes, and serve the stage."""
    parser = argparse.ArgumentParser(prog="dynalign-replica", description="Run one of several engines of a stage.")
    parser.add_argument("--stage", type=int, required=True, help="process id of the stage")
    parser.add_argument("--connection", type=int, required=True, help="file descriptor of the connection to the stage")
    parser.add_argument("--cores", default="", help="numbers of the cores to be bound to; empty for all")
    arguments = parser.parse_args(argv)
    die_with_parent(arguments.stage)
    for number in (signal.SIGTERM, signal.SIGINT):  # the stage decides, and closes the connection
        signal.signal(number, signal.SIG_IGN)
    configure_logging()
    if arguments.cores:
        os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})
    connection: Connection[Any, Any] = Connection(arguments.connection)
    import_libraries()
    try:
        plan: EnginePlan = connection.recv()
        engine = start_vllm_engine(plan)
        connection.send(Ready(engine.slots))
    except (EOFError, ConnectionError):
        _leave()
    except Exception as error:  # noqa: BLE001 - the stage decides what it means
        connection.send(_failure(0, error))
        _leave()
    Replica(connection, engine).serve()
    _leave()


def _leave() -> None:
    """End at once; where the engine has processes of its own, in the usual way, which ends them."""
    if multiprocessing.active_children():
        sys.exit(0)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
