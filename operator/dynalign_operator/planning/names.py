"""Names of a run's objects: deterministic, so that creating twice is harmless."""

from typing import Final

from dynalign_operator.manifests.objects import shorten
from dynalign_operator.planning.observed import Step

MAX_NAME: Final = 57
"""An Indexed Job's pods are called `<job>-<index>`, which has to fit into the 63 characters of a host name."""


def job_name(run: str, step: Step, attempt: int) -> str:
    """Name of a Job and of its ConfigMap: `<run>-i003-judge-a1`, `<run>-fetch-a1`.

    A long run name is cut and followed by a hash of the whole, so that no two runs share a name.
    """
    place = f"-{step.stage}-a{attempt}" if step.iteration is None else f"-i{step.iteration:03d}-{step.stage}-a{attempt}"
    return shorten(run, MAX_NAME - len(place)) + place
