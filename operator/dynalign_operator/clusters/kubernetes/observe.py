"""Conversion of a Job and its pods, as the API server describes them, into the planner's observation. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from dynalign_contract.exit_codes import FINAL
from dynalign_contract.result import StageResult
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.kubernetes.pods import (
    DISRUPTION,
    OUT_OF_MEMORY,
    StagePod,
    condition_of,
    parse_time,
    read_pod,
)
from dynalign_operator.clusters.kubernetes.waiting import is_suspended, read_wait
from dynalign_operator.manifests.labels import read_job_labels
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.planning.observed import (
    DISRUPTED,
    ClaimObservation,
    JobObservation,
    JobPhase,
    JobProgress,
    PodTime,
)

_BY_POLICY: Final = "PodFailurePolicy"
"""Reason of a Job that a rule of its podFailurePolicy has failed."""
_BY_DEADLINE: Final = "DeadlineExceeded"
"""Reason of a Job that has outlived its activeDeadlineSeconds."""
_MOST_COMPLETIONS: Final = 65_536
"""More than any stage has: a Job that somebody else made may claim two thousand millions."""


def observe_job(
    job: KubernetesObject,
    pods: Sequence[KubernetesObject],
    *,
    progress: JobProgress | None = None,
    last_progress_time: datetime | None = None,
) -> JobObservation | None:
    """The planner's view of a Job; None for one whose labels are not of ours.

    `pods` are the Job's pods, finished ones included. A Job that failed although none of its pods is left to tell why
    was disrupted: somebody removed them.
    """
    metadata, spec, status = job["metadata"], job["spec"], job.get("status", {})
    labels = read_job_labels(metadata.get("labels", {}))
    if labels is None:
        return None
    phase = _phase(status)
    parsed = [read_pod(pod) for pod in pods]
    ended = _decisive(parsed, is_gang="successPolicy" in spec) if phase is JobPhase.FAILED else None
    told = [ended] if ended is not None and "successPolicy" in spec else parsed
    wait = read_wait(job, parsed)
    started = [pod.started for pod in parsed if pod.started is not None]
    runs = any(pod.runs for pod in parsed)
    reason, message = wait.reason, wait.message
    if phase is JobPhase.FAILED:
        reason, message = _explain_failure(status, ended, labels.stage)
    return JobObservation(
        name=metadata["name"],
        stage=labels.stage,
        iteration=labels.iteration,
        attempt=labels.attempt,
        creation_time=parse_time(metadata["creationTimestamp"]),
        phase=phase,
        results=_results(told, min(int(spec.get("completions") or 1), _MOST_COMPLETIONS)),
        exit_code=None if ended is None else ended.exit_code,
        reason=reason,
        message=message,
        start_time=min(started, default=None),
        waiting_since=wait.since,
        missing_pods=wait.missing_pods,
        completion_time=_completion_time(status),
        pods=_pod_times(parsed),
        last_progress_time=last_progress_time,
        progress=progress,
        suspended=is_suspended(job),
        stranded=bool(started) and not runs and (wait.since is not None or wait.missing_pods > 0),
        deleting="deletionTimestamp" in metadata,
    )


def observe_claim(claim: KubernetesObject) -> ClaimObservation:
    """The planner's view of a PersistentVolumeClaim: what its volume offers, or what it asks for until it has one."""
    modes = claim.get("status", {}).get("accessModes") or claim["spec"].get("accessModes") or ()
    return ClaimObservation(frozenset(modes))


def has_succeeded(job: Mapping[str, Any]) -> bool:
    """Whether the Job has condition Complete."""
    return _phase(job.get("status", {})) is JobPhase.SUCCEEDED


def _phase(status: Mapping[str, Any]) -> JobPhase:
    for kind, phase in (("Complete", JobPhase.SUCCEEDED), ("Failed", JobPhase.FAILED)):
        if condition_of(status, kind) is not None:
            return phase
    return JobPhase.ACTIVE


def _completion_time(status: Mapping[str, Any]) -> datetime | None:
    condition = condition_of(status, "Complete") or condition_of(status, "Failed")
    text = status.get("completionTime") or (condition or {}).get("lastTransitionTime")
    return None if text is None else parse_time(text)


def _pod_times(pods: Iterable[StagePod]) -> tuple[PodTime, ...]:
    times = [
        PodTime(pod.index, pod.started, parse_time(pod.finished_at) if pod.finished_at else None)
        for pod in pods
        if pod.started is not None
    ]
    return tuple(sorted(times, key=lambda pod: pod.start_time))


def _results(pods: Iterable[StagePod], completions: int) -> tuple[StageResult | None, ...]:
    """The latest readable result of each completion index."""
    results: list[StageResult | None] = [None] * completions
    for pod in sorted(pods, key=lambda pod: pod.finished_at):
        result = _read_result(pod.ended.message if pod.ended else None)
        if result is not None and pod.index < completions:
            results[pod.index] = result
    return tuple(results)


def _read_result(message: str | None) -> StageResult | None:
    try:
        return None if message is None else StageResult.decode(message)
    except ValidationError:
        return None


def _decisive(pods: Iterable[StagePod], *, is_gang: bool) -> StagePod | None:
    """The failed pod that decided the Job's end.

    One whose exit code is final, else the latest. In a gang the first loss brings down the others, who then tell of
    broken connections: there it is one that was killed for its memory or disrupted, else the earliest.
    """
    failed = [pod for pod in pods if pod.phase == "Failed"]
    failed.sort(key=lambda pod: pod.finished_at, reverse=is_gang)
    if is_gang:
        failed.sort(key=lambda pod: (pod.was_out_of_memory, pod.disruption is not None))
    failed.sort(key=lambda pod: pod.exit_code in FINAL)
    return failed[-1] if failed else None


def _explain_failure(status: Mapping[str, Any], pod: StagePod | None, stage: Stage) -> tuple[str, str]:
    """Reason and message of a failed Job."""
    condition = condition_of(status, "Failed") or {}
    if condition.get("reason") == _BY_POLICY and f"condition {DISRUPTION}" in condition.get("message", ""):
        return DISRUPTED, condition["message"]  # the pod itself may be gone, and others may have failed for its loss
    if condition.get("reason") == _BY_DEADLINE:  # its pods are removed with it
        return _BY_DEADLINE, str(condition.get("message", ""))
    if pod is None:
        return DISRUPTED, "its pods were removed before they could say why they ended"
    if pod.disruption is not None:
        return DISRUPTED, str(replace(pod.disruption, reason=pod.disruption.reason or DISRUPTION))
    if pod.was_out_of_memory:
        return OUT_OF_MEMORY, (
            "the container used more memory than its limit and was killed (OOMKilled); raise "
            f"spec.stages.{stage}.resources.limits.memory"
        )
    return str(condition.get("reason", "")), str(pod.message or condition.get("message", ""))
