"""Tests that choose kind's cluster, whatever up.sh would give."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_ENVIRONMENT = Path(__file__).parents[1] / "cluster" / "env.sh"


@contextmanager
def on_kind() -> Iterator[None]:
    """The scripts of tests/cluster choose kind; skips where something else was chosen by hand, or Docker cannot run it."""
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNALIGN_TEST_CLUSTER", "kind")
        patch.delenv("KUBECONFIG", raising=False)
        yield


def _why_not() -> str:
    chosen = os.environ.get("DYNALIGN_TEST_CLUSTER")
    if os.environ.get("KUBECONFIG"):
        return "KUBECONFIG selects a cluster"
    if chosen:
        return f"DYNALIGN_TEST_CLUSTER={chosen} has chosen already"
    question = f". '{_ENVIRONMENT}'; docker_works || exit 1; kind_can_run || exit 2"
    answer = subprocess.run(["bash", "-c", question], check=False).returncode
    return {0: "", 1: "no Docker daemon answers"}.get(answer, "Docker cannot run privileged containers here")
