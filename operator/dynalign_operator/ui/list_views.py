"""The list of runs: searched, filtered, ordered and cut into pages. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dynalign_operator.api.status import Phase
from dynalign_operator.cli.situation import Situation, explain_situation, remark_on
from dynalign_operator.clusters.run_source import ListedRun, RunList, RunPlace, RunSnapshot
from dynalign_operator.ui.headlines import headline_of
from dynalign_operator.ui.models import PAGE_SIZE, RunRow, RunsPage

_ORDER: Final = (Phase.RUNNING, Phase.PENDING, Phase.SUSPENDED, Phase.FAILED, Phase.SUCCEEDED)
NOTHING: Final = "Nothing."
"""Beginning of a sentence of `explain_situation` that asks for no action."""


@dataclass(frozen=True)
class ListQuery:
    """What a person wants to see of the list."""

    words: str = ""
    """All must occur in name, place, phase or reason."""
    phase: str = ""
    """Empty for all."""
    page: int = 1


def build_list(found: RunList, query: ListQuery, now: datetime) -> RunsPage:
    """The page of the list that was asked for, or the last one where there are fewer; those that work come first."""
    words = query.words.casefold().split()
    searched = [run for run in found.runs if all(word in _search_text(run) for word in words)]
    matching = [run for run in searched if query.phase in ("", str(run.status.phase))]
    ordered = sorted(matching, key=_rank)
    pages = max(1, -(-len(ordered) // PAGE_SIZE))
    page = min(max(1, query.page), pages)
    counts = Counter(str(run.status.phase) for run in searched)
    return RunsPage(
        rows=tuple(_row(run, now) for run in ordered[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]),
        page=page,
        pages=pages,
        matched=len(ordered),
        total=len(found.runs),
        phases={str(phase): counts[str(phase)] for phase in _ORDER},
        notes=found.notes,
    )


def _search_text(run: ListedRun) -> str:
    return f"{run.name} {run.group} {run.status.phase} {remark_on(run)} {run.status.stage or ''}".casefold()


def _rank(run: ListedRun) -> tuple[int, float, str, str]:
    """Order by phase, then by the time of the last start, latest first."""
    started = run.status.start_time
    return _ORDER.index(run.status.phase), -started.timestamp() if started else 0.0, run.group, run.name


def _row(run: ListedRun, now: datetime) -> RunRow:
    said = _situation(run, now)
    to_do = [sentence for sentence in said.to_do if not sentence.startswith(NOTHING)]
    return RunRow(**headline_of(run), sentence=_first(said.does), to_do=_first(to_do))


def _situation(run: ListedRun, now: datetime) -> Situation:
    """What the status alone says: Jobs and events are looked at on the run's own page."""
    if run.run is None:
        return Situation([run.problem], [], [])
    place = RunPlace(title=run.group, files=run.folder or run.group, arguments=run.name, is_cluster=run.is_cluster)
    return explain_situation(RunSnapshot(run.run, place, is_driven=run.is_driven), (), now)


def _first(sentences: Sequence[str]) -> str:
    return sentences[0] if sentences else ""
