"""Options and fixtures of the whole suite."""

import gc
import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support.goldens import Goldens

# Other work on the machine makes an example slow, not wrong.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


def pytest_configure() -> None:
    """Tests that run side by side share the cores, and so do the processes that they start."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported here stays, and Python need not look for garbage among its million objects again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a fresh machine Kubernetes and the images are built beside the first tests, which need neither.

    Within that, what takes longest comes first, so that the workers end together: files of slow tests, then files of
    many tests.
    """
    sizes = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: _turn(item, sizes[item.path], is_slow=item.path in slow))


def _turn(item: pytest.Item, size: int, *, is_slow: bool) -> tuple[int, int]:
    """Where a test comes in; `size` is the number of tests in its file, in which one or more are slow if `is_slow`."""
    folder = item.path.parent.name
    if item.get_closest_marker("cluster"):
        return (1 if folder == "e2e" else 2), 0
    if folder in ("e2e", "integration"):
        return 0, 0
    return (3, 0) if is_slow else (4, -size)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write tests/data anew instead of comparing with it")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Qwen3, which tests read and do not change."""
    from lab.tiny_qwen3 import write_tiny_qwen3

    return write_tiny_qwen3(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_model: Path) -> Any:
    """Its tokenizer, whose tokens are bytes."""
    from dynalign_trainer.models.folder import load_tokenizer

    return load_tokenizer(tiny_model)


@pytest.fixture
def goldens(request: pytest.FixtureRequest) -> Goldens:
    return Goldens(update=request.config.getoption("--update-goldens"))
