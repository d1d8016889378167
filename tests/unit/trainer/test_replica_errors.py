"""Errors of an engine in a process of its own: the stage gets each of them, or one that says the same."""

import threading
from multiprocessing import Pipe

import pytest

from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.replica import _failure


class _TwoArgumentsError(Exception):
    def __init__(self, place: str, fault: str) -> None:
        super().__init__(f"{place}: {fault}")


class _LockedError(Exception):
    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("error", "arrives"),
    [
        (BadInputError("the prompt is too long"), BadInputError("the prompt is too long")),
        (ValueError("no"), ValueError("no")),
        (_TwoArgumentsError("here", "no room"), RuntimeError("_TwoArgumentsError: here: no room")),
        (_LockedError("busy"), RuntimeError("_LockedError: busy")),
    ],
)
def test_every_error_arrives(error: Exception, arrives: Exception) -> None:
    stage, engine = Pipe()
    engine.send(_failure(3, error))
    received = stage.recv()
    assert received.number == 3
    assert (type(received.error), str(received.error)) == (type(arrives), str(arrives))
