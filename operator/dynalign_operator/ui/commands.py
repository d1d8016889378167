"""Command lines for the user's own terminal, beside what the page shows. Pure."""

import shlex

from dynalign_operator.api.status import Phase
from dynalign_operator.clusters.run_source import RunSnapshot
from dynalign_operator.ui.models import CommandView


def build_commands(snapshot: RunSnapshot) -> tuple[CommandView, ...]:
    """What a person may type next about this run."""
    place, phase = snapshot.place, snapshot.run.status.phase
    arguments = place.arguments if place.is_cluster else shlex.quote(place.arguments)
    ended = phase in (Phase.SUCCEEDED, Phase.FAILED)
    found = [
        CommandView(title="The same in a terminal", command=f"dynalign describe {arguments}"),
        CommandView(title="Its logs", command=f"dynalign logs {arguments}{'' if ended else ' -f'}"),
    ]
    if not ended:
        found.append(CommandView(title="To its end", command=f"dynalign watch {arguments}"))
    if not place.is_cluster:
        found.append(CommandView(title="Its report", command=f"dynalign report {arguments}"))
    return tuple(found)
