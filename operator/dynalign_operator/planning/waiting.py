"""Why a Job's pods do not start, in the cluster's own words, and what to do about it: one remedy for each cause."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from dynalign_contract.pod_paths import METRICS_PORT
from dynalign_operator.api.durations import after
from dynalign_operator.api.rollouts import pods_stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.secrets import environment_secrets, secret_variables
from dynalign_operator.manifests.volume import claim_name
from dynalign_operator.planning.begun_rollout import keep_begun_rollout
from dynalign_operator.planning.observed import JobObservation

NO_POD_AFTER: Final = timedelta(seconds=30)
"""How long the Job controller may take to create a pod before that is worth a word."""

UNKNOWN_AFTER: Final = timedelta(minutes=2)
"""How long a Job may run before it is worth a word that nothing can be read of its progress."""

_UNSCHEDULABLE: Final = frozenset({"Unschedulable", "SchedulerError"})
_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_REFERENCE: Final = frozenset({"CreateContainerConfigError"})
_ABOUT_A_VOLUME: Final = re.compile(r"persistent ?volume|volume node affinity|VolumeBinding", re.IGNORECASE)
_NAMED_CLAIM: Final = re.compile(r'persistentvolumeclaim "([a-z0-9.-]+)"')


class Cause(StrEnum):
    """Why pods do not start, as far as it decides what to do."""

    NO_PLACE = "NoPlace"
    """No node has what the pod asks for."""
    VOLUME = "Volume"
    """A claim is not bound, is missing, or is bound where the pod cannot go."""
    IMAGE = "Image"
    REFERENCE = "Reference"
    """A Secret or ConfigMap, or a key of it, is missing."""
    NO_POD = "NoPod"
    """The API server takes no pod: quota, admission, Pod Security. Only the Job's events say which."""
    OTHER = "Other"
    SILENT = "Silent"
    """Nobody says anything: an image is being pulled, or a volume mounted."""


def find_cause(job: JobObservation) -> Cause:
    """What keeps the Job's pods from starting."""
    if not job.message:
        return Cause.NO_POD if job.missing_pods else Cause.SILENT
    if job.reason in _UNSCHEDULABLE:
        return Cause.VOLUME if _ABOUT_A_VOLUME.search(job.message) else Cause.NO_PLACE
    if job.reason in _IMAGE:
        return Cause.IMAGE
    return Cause.REFERENCE if job.reason in _REFERENCE else Cause.OTHER


def explain_wait(run: AlignmentRun, job: JobObservation) -> str:
    """What the cluster says of pods that do not start, and the remedy. Never empty."""
    said = f"The cluster says: {job.message.rstrip('.')}. " if job.message else ""
    return said + _REMEDIES[find_cause(job)](run, job)


def explain_progress(run: AlignmentRun, job: JobObservation, now: datetime) -> str:
    """Why the pods wait while there is time left, and how the Job then goes on; empty when there is no cause yet."""
    match find_cause(job):
        case Cause.SILENT:
            return _explain_unknown(job, now)
        case Cause.NO_POD if now < after(waiting_since(job), NO_POD_AFTER):
            return ""
        case Cause.NO_PLACE:
            delete = f"`kubectl delete job {job.name} -n {run.metadata.namespace}`"
            then = f" A changed spec reaches this Job by {delete}, which creates it anew."
        case Cause.OTHER:
            then = ""
        case _:
            then = " It then goes on by itself."
    return explain_wait(run, job) + then


def _explain_unknown(job: JobObservation, now: datetime) -> str:
    if job.start_time is None or job.is_progress_known or now < after(job.seen_since or job.start_time, UNKNOWN_AFTER):
        return ""
    return (
        f"Its progress is unknown: port {METRICS_PORT} of its pods does not answer the operator, or reading is "
        "switched off (the chart's value progress). spec.policy.stallTimeout counts only while progress can be read; "
        "the end is spec.policy.deadline."
    )


def waiting_since(job: JobObservation) -> datetime:
    """When the wait began: a pod that replaces a lost one, or comes out of a queue, is younger than its Job."""
    return job.waiting_since or job.creation_time


def _no_place(run: AlignmentRun, job: JobObservation) -> str:
    return (
        "Free or add what the scheduler misses, or change resources, nodeSelector or tolerations in "
        f"spec.stages.{pods_stage(keep_begun_rollout(run).spec, job.stage)}."
    )


def _volume(run: AlignmentRun, job: JobObservation) -> str:
    named = _NAMED_CLAIM.search(job.message)
    return correct_claim(run, named[1] if named else claim_name(run))


def correct_claim(run: AlignmentRun, claim: str) -> str:
    """What to do about a claim that gets no volume, or one that the pods cannot reach."""
    return (
        f"`kubectl describe pvc {claim} -n {run.metadata.namespace}` says what the claim lacks: a StorageClass of its "
        "name, one that offers its access mode, space, or a node that reaches the volume. Correct that; spec.storage "
        "itself cannot be changed, so for other storage apply a run of another name."
    )


def _image(run: AlignmentRun, _: JobObservation) -> str:
    return (
        "Check that the image exists and that the nodes may pull it: the chart's trainer.image and "
        f"trainer.imagePullSecrets, whose Secrets must be in namespace {run.metadata.namespace}."
    )


def _reference(run: AlignmentRun, job: JobObservation) -> str:
    asked = [
        f"{s.field} asks for the key {s.reference.key} of {s.reference.name}"
        for s in (*secret_variables(run, job.stage), *environment_secrets(run, job.stage))
    ]
    example = f" ({', '.join(asked)})" if asked else ""
    return f"Create it in namespace {run.metadata.namespace}{example}."


def _no_pod(run: AlignmentRun, job: JobObservation) -> str:
    count = f"{job.missing_pods} of {max(job.missing_pods, len(job.results))} pods"
    return (
        f"The cluster takes no more pods of Job {job.name} ({count} are missing): a quota, an admission webhook or Pod "
        f"Security refuses them. `kubectl describe job {job.name} -n {run.metadata.namespace}` says which."
    )


def _other(run: AlignmentRun, job: JobObservation) -> str:
    return f"{_describe_pods(run, job)} tells more."


def _silent(run: AlignmentRun, job: JobObservation) -> str:
    claim = f"`kubectl describe pvc {claim_name(run)} -n {run.metadata.namespace}`"
    return (
        f"{_describe_pods(run, job)} and {claim} tell what it waits for: an image that is pulled slowly, or a "
        "volume to make or mount."
    )


def _describe_pods(run: AlignmentRun, job: JobObservation) -> str:
    return f"`kubectl describe pods -n {run.metadata.namespace} -l batch.kubernetes.io/job-name={job.name}`"


_REMEDIES: Final[Mapping[Cause, Callable[[AlignmentRun, JobObservation], str]]] = {
    Cause.NO_PLACE: _no_place,
    Cause.VOLUME: _volume,
    Cause.IMAGE: _image,
    Cause.REFERENCE: _reference,
    Cause.NO_POD: _no_pod,
    Cause.OTHER: _other,
    Cause.SILENT: _silent,
}
