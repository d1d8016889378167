"""What `dynalign watch` shows: a picture that is drawn anew on a terminal, lines elsewhere."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live

from dynalign_operator.api.status import ConditionType
from dynalign_operator.cli.description import headline, latest_events, situation
from dynalign_operator.cli.situation import condition_of, explain_situation
from dynalign_operator.cli.tables import progress_table
from dynalign_operator.clusters.run_source import RunEvent, RunSnapshot
from dynalign_operator.planning.plan import EventType

_LATEST_ITERATIONS: Final = 8
_LATEST_EVENTS: Final = 5
_NUMBER: Final = re.compile(r"[0-9]+")

View = Callable[[RunSnapshot, tuple[RunEvent, ...], datetime], None]
"""Shows a run at one moment with all its events."""


@contextmanager
def live_view(console: Console) -> Iterator[View]:
    """A picture that is drawn anew in place, and is gone at the end."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda snapshot, events, now: live.update(picture(snapshot, events, now), refresh=True)


def picture(snapshot: RunSnapshot, events: tuple[RunEvent, ...], now: datetime) -> RenderableType:
    """Headline, the latest iterations, situation and the latest events."""
    parts: list[RenderableType] = [headline(snapshot, now)]
    if snapshot.run.status.iterations:
        parts += ["", progress_table(snapshot.run, _LATEST_ITERATIONS)]
    parts += ["", situation(explain_situation(snapshot, events, now))]
    if events:
        parts += ["", latest_events(events[-_LATEST_EVENTS:], now)]
    return Group(*parts)


def plain_view(console: Console) -> View:
    """A line for each new event; where there was none, one when the conditions say something else."""
    seen: set[RunEvent] = set()
    said: list[str] = []

    def show(snapshot: RunSnapshot, events: tuple[RunEvent, ...], now: datetime) -> None:
        fresh = [event for event in events if event not in seen] if said else []
        seen.update(events)
        for event in fresh:
            mark = "! " if event.type is EventType.WARNING else ""
            _print(console, now, snapshot, f"{mark}{event.message}")
        words = _conditions_of(snapshot)
        if not said:
            console.print(headline(snapshot, now), soft_wrap=True)
        if (not said or words != said[-1]) and not fresh:
            found = explain_situation(snapshot, events, now)
            for sentence in (*found.does, *found.waits):
                _print(console, now, snapshot, sentence)
        said[:] = [words]

    return show


def _conditions_of(snapshot: RunSnapshot) -> str:
    """What the run's conditions say, without numbers, which change all the time."""
    status = snapshot.run.status
    found = (condition_of(status, kind) for kind in (ConditionType.PROGRESSING, ConditionType.STALLED))
    messages = " ".join(condition.message for condition in found if condition is not None)
    return f"{status.phase} {_NUMBER.sub('#', messages)}"


def _print(console: Console, now: datetime, snapshot: RunSnapshot, text: str) -> None:
    console.print(f"{now:%H:%M:%S} {snapshot.run.status.progress:20s} {text}", soft_wrap=True)
