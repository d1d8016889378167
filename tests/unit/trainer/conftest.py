"""Fixtures of the trainer's unit tests."""

import signal
from collections.abc import Iterator

import pytest

from dynalign_trainer.models import opening


@pytest.fixture(autouse=True)
def _sigterm_handler() -> Iterator[None]:
    """A stage that runs within a test sets a handler of its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def _no_engine_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages of these tests are scripted: none of them needs vLLM, which takes seconds to import."""
    monkeypatch.setattr(opening, "import_libraries", lambda: None)
