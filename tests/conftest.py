"""Options and fixtures of the whole suite."""

import pytest

from support.goldens import Goldens


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write tests/data anew instead of comparing with it")


@pytest.fixture
def goldens(request: pytest.FixtureRequest) -> Goldens:
    return Goldens(update=request.config.getoption("--update-goldens"))
