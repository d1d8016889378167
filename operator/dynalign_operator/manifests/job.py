"""The batch/v1 Job of one attempt of a stage."""

from typing import Final

from dynalign_contract.config import StageConfig
from dynalign_contract.exit_codes import FINAL
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun, parse_duration
from dynalign_operator.manifests.labels import KUEUE_QUEUE, JobLabels, job_labels
from dynalign_operator.manifests.objects import KubernetesObject, build_metadata
from dynalign_operator.manifests.pod import CONTAINER, BuildSettings, build_pod_template

_FINAL_CODES: Final = sorted(int(code) for code in FINAL)


def build_job(run: AlignmentRun, config: StageConfig, name: str, settings: BuildSettings) -> KubernetesObject:
    """The Job `name`.

    A Job fails with its first failed pod and the planner decides about the next attempt, with two exceptions that need
    no new attempt: a disrupted pod is replaced, and the shards of generate and judge are restarted one by one.
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
    nodes = run.spec.training.nodes if config.stage is Stage.TRAIN else 1
    fields: KubernetesObject = {
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": 0,
        "podFailurePolicy": _build_failure_policy("FailJob"),
    }
    if nodes > 1:
        fields["completionMode"] = "Indexed"
        fields["successPolicy"] = {"rules": [{"succeededIndexes": "0"}]}
    return fields


def _build_failure_policy(action: str) -> KubernetesObject:
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": action,
                "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": _FINAL_CODES},
            },
        ]
    }


__all__ = ["BuildSettings", "build_job"]
