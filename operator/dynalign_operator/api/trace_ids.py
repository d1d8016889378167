"""Ids of a run's trace. They follow from the run alone: every operator process continues the same trace. Pure."""

from hashlib import sha256
from uuid import UUID

from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun


def trace_id(run: AlignmentRun) -> int:
    """The 128 bits of the run's uid, or of a digest of its name where it has none."""
    try:
        found = UUID(run.metadata.uid).int
    except ValueError:
        found = 0
    return found or _digest(16, run.metadata.namespace, run.metadata.name)


def run_span_id(run: AlignmentRun) -> int:
    """Id of the root span: the whole run until its end, or its latest one where it has gone on."""
    return _digest(8, f"{trace_id(run):032x}", "run")


def iteration_span_id(run: AlignmentRun, iteration: int) -> int:
    """Id of an iteration's span."""
    return _digest(8, f"{trace_id(run):032x}", str(iteration))


def stage_span_id(run: AlignmentRun, stage: Stage, iteration: int | None, attempt: int) -> int:
    """Id of the span of one attempt of a stage."""
    return _digest(8, f"{trace_id(run):032x}", str(iteration), str(stage), str(attempt))


def traceparent(run: AlignmentRun, stage: Stage, iteration: int | None, attempt: int) -> str:
    """The W3C trace context of an attempt, for the variable TRACEPARENT: what it starts belongs to its span."""
    return f"00-{trace_id(run):032x}-{stage_span_id(run, stage, iteration, attempt):016x}-01"


def _digest(length: int, *words: str) -> int:
    """So many bytes of a digest; never 0, which is no id."""
    return int.from_bytes(sha256("\n".join(words).encode()).digest()[:length]) or 1
