"""Which failures are tried again, and when (docs/design.md, "Retries")."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from dynalign_contract.exit_codes import FINAL, ExitCode
from dynalign_operator.planning import reasons
from dynalign_operator.planning.exit_reasons import reason_of
from dynalign_operator.planning.observed import DISRUPTED

_FIRST_PAUSE: Final = timedelta(seconds=10)
_LONGEST_PAUSE: Final = timedelta(minutes=5)


class Verdict(StrEnum):
    """What a failure means for the run."""

    FREE = "Free"
    """Try again; the failure does not count."""
    COUNTED = "Counted"
    """Try again; the failure counts against `policy.retries`."""
    GIVE_UP = "GiveUp"


@dataclass(frozen=True)
class Judgement:
    """A verdict, and the reason of the Stalled condition when it is to give up."""

    verdict: Verdict
    reason: str = ""


def judge_failure(
    exit_code: int | None, cluster_reason: str, *, failures: int, retries: int, restarted_shards: bool
) -> Judgement:
    """Decide about one failed attempt.

    `failures` is the number of counted failures before this one. `restarted_shards` says that the Job has restarted
    every shard `retries` times by itself (`backoffLimitPerIndex`), so that its failure is the last.
    Exit code 143 is always somebody else's SIGTERM: as free as a disruption that the cluster reports.
    """
    if cluster_reason == DISRUPTED or exit_code == ExitCode.TERMINATED:
        return Judgement(Verdict.FREE)
    if exit_code in FINAL:
        return Judgement(Verdict.GIVE_UP, reason_of(ExitCode(exit_code)))
    if restarted_shards or failures >= retries:
        return Judgement(Verdict.GIVE_UP, reasons.RETRIES_EXHAUSTED)
    return Judgement(Verdict.COUNTED)


def pause_before_retry(failures: int) -> timedelta:
    """Pause after so many counted failures, or after so many disruptions in a row.

    None after the first, then 10 s, doubling, at most 5 minutes: what evicts every attempt at once is no accident, and
    would make a Job a second.
    """
    if failures <= 1:
        return timedelta(0)
    return min(_FIRST_PAUSE * (1 << min(failures - 2, 10)), _LONGEST_PAUSE)
