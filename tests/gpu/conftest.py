"""What every test of this folder needs."""

import pytest

from lab.gpus import why_no_gpu


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    """Fails instead of computing on a CPU, which the other folders test."""
    if missing := why_no_gpu():
        pytest.fail(missing, pytrace=False)
