"""The batch/v1 Job of one attempt of a stage."""

from datetime import timedelta
from typing import Final

from dynalign_contract.config import StageConfig
from dynalign_contract.exit_codes import FINAL
from dynalign_contract.stages import SIDE_STAGES
from dynalign_operator.api.durations import parse_duration
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.manifests.labels import KUEUE_QUEUE, JobLabels, job_labels
from dynalign_operator.manifests.objects import KubernetesObject, build_metadata
from dynalign_operator.manifests.pod import CONTAINER, build_pod_template

SIDE_LIMIT: Final = timedelta(minutes=10)
"""How long a side stage may take, waiting for a place included, before the planner ends its Job."""
_LEEWAY: Final = timedelta(minutes=2)
"""Time that is left to the planner before Kubernetes ends the Job of a side stage by itself."""
_FINAL_CODES: Final = sorted(int(code) for code in FINAL)


def build_job(run: AlignmentRun, config: StageConfig, name: str, settings: BuildSettings) -> KubernetesObject:
    """The Job `name`.

    A Job fails with its first failed pod and the planner decides about the next attempt, with two exceptions that need
    no new attempt: a disrupted pod is replaced, and shards are restarted one by one. A gang has neither: its pods
    cannot go on without the one that is lost, so all of it starts again as the next attempt.
    """
    labels = job_labels(JobLabels(run.metadata.name, config.stage, config.iteration, config.attempt))
    if run.spec.scheduling.queue_name is not None:
        labels[KUEUE_QUEUE] = run.spec.scheduling.queue_name
    spec: KubernetesObject = {
        **_build_completions(run, config),
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": int(parse_duration(run.spec.policy.ttl_after_finished).total_seconds()),
        "template": build_pod_template(run, config, name, settings),
    }
    if config.stage in SIDE_STAGES:
        spec["activeDeadlineSeconds"] = int((SIDE_LIMIT + _LEEWAY).total_seconds())
    if run.spec.scheduling.queue_name is not None:
        spec["suspend"] = True
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": build_metadata(run, name, labels), "spec": spec}


def _build_completions(run: AlignmentRun, config: StageConfig) -> KubernetesObject:
    """How many pods, how they are numbered, and what their failures mean."""
    if config.shards > 1:
        return {
            "completionMode": "Indexed",
            "completions": config.shards,
            "parallelism": config.shards,
            "backoffLimitPerIndex": run.spec.policy.retries,
            "maxFailedIndexes": 0,
            "podFailurePolicy": _build_failure_policy("FailIndex"),
        }
    fields: KubernetesObject = {"completions": config.nodes, "parallelism": config.nodes, "backoffLimit": 0}
    if config.nodes == 1:
        return {**fields, "podFailurePolicy": _build_failure_policy("FailJob")}
    return {
        **fields,
        "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        "podFailurePolicy": _build_failure_policy("FailJob", disrupted="FailJob"),
    }


def _build_failure_policy(final: str, *, disrupted: str = "Ignore") -> KubernetesObject:
    """What happens to a pod that was disrupted, and to one whose exit code is final."""
    return {
        "rules": [
            {"action": disrupted, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": final,
                "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": _FINAL_CODES},
            },
        ]
    }
