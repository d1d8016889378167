"""Labels of a run's objects; run, stage and attempt of an object are read from its labels, never from its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dynalign_contract.stages import Stage

RUN: Final = "dynalign.io/run"
STAGE: Final = "dynalign.io/stage"
ITERATION: Final = "dynalign.io/iteration"
ATTEMPT: Final = "dynalign.io/attempt"

JOB_NAME: Final = "batch.kubernetes.io/job-name"
"""Label that the Job controller gives a Job's pods."""

MANAGED: Final = {"app.kubernetes.io/managed-by": "dynalign"}
"""Label of every object that the operator creates; the watches and listings select by it."""
MANAGED_SELECTOR: Final = ",".join(f"{name}={value}" for name, value in MANAGED.items())

_MAX_DIGITS: Final = 9

KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True)
class JobLabels:
    """What a Job's labels say."""

    run: str
    stage: Stage
    iteration: int | None
    attempt: int


def run_labels(run: str) -> dict[str, str]:
    """Labels of every object of a run."""
    return {"app.kubernetes.io/name": "dynalign", **MANAGED, RUN: run}


def job_labels(labels: JobLabels) -> dict[str, str]:
    """Labels of a Job, its pods and its ConfigMap; fetch and export have no iteration."""
    iteration = {} if labels.iteration is None else {ITERATION: str(labels.iteration)}
    return {**run_labels(labels.run), STAGE: str(labels.stage), **iteration, ATTEMPT: str(labels.attempt)}


def read_job_labels(labels: Mapping[str, str]) -> JobLabels | None:
    """The reverse of `job_labels`; None for labels that are not of ours."""
    try:
        return JobLabels(
            run=labels[RUN],
            stage=Stage(labels[STAGE]),
            iteration=_read_number(labels[ITERATION]) if ITERATION in labels else None,
            attempt=_read_number(labels[ATTEMPT]),
        )
    except (KeyError, ValueError):
        return None


def _read_number(text: str) -> int:
    """A number of ours. Raises ValueError for one that a status could not hold."""
    if not (text.isascii() and text.isdecimal()) or len(text) > _MAX_DIGITS:
        raise ValueError(text)
    return int(text)
