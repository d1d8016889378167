"""Progress of a stage's calls to a model, and the place where SIGTERM interrupts them."""

from collections.abc import Callable
from typing import Any

from dynalign_trainer.runtime.context import StageContext

Watch = Callable[[int, int, float], None]
"""Called between engine steps with (requests done, requests in all, tokens per second); may raise to stop."""


def watch_progress(context: StageContext[Any], *, done: int, total: int, share: float) -> Watch:
    """A Watch that publishes progress and obeys SIGTERM.

    The stage has finished `done` of `total` units; the coming call is worth `share` units.
    """

    def watch(finished: int, requests: int, rate: float) -> None:
        context.telemetry.progress(done + share * finished / requests, total)
        context.telemetry.rate(rate)
        context.check_stop()

    return watch


def part_of(watch: Watch | None, start: float, end: float) -> Watch | None:
    """A Watch for one of several calls: it tells `watch` of progress from `start` to `end`, both 0 to 1."""
    if watch is None:
        return None

    def inner(done: int, total: int, rate: float) -> None:
        watch(round(1000 * (start + (end - start) * done / total)), 1000, rate)

    return inner
