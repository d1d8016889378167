"""Messages between `dynalign run` and its preload server: one JSON line for each request and each event."""

from typing import Final

from dynalign_contract.base import Model
from dynalign_contract.pod_paths import Variable

WORKDIR_VARIABLE: Final = Variable.WORKDIR
"""Marks every process of a run, grandchildren included, so that a later dynalign finds what a killed one left."""


class StageRequest(Model):
    """Request to run a stage. One at a time: the next request is read when the stage has ended."""

    arguments: tuple[str, ...]
    """Arguments of `dynalign-stage`."""
    environment: dict[str, str]
    """All of it; nothing is inherited."""
    folder: str
    """Working folder."""
    log: str
    """File that the stage's output is appended to."""


class StageEvent(Model):
    """The stage has begun (`pid`, which leads a process group of its own), and later: it has ended (`returncode`)."""

    pid: int
    returncode: int | None = None
    """Exit code, or -n after signal n; None while it runs."""
