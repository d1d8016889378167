"""The ConfigMap that carries a stage's configuration into its pod."""

from typing import Final

from dynalign_contract.config import StageConfig
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.labels import JobLabels, job_labels
from dynalign_operator.manifests.objects import KubernetesObject, build_metadata

CONFIG_FILE: Final = "stage.json"


def build_config_map(run: AlignmentRun, config: StageConfig, name: str) -> KubernetesObject:
    """One key, `stage.json`; immutable, because an attempt never changes."""
    labels = job_labels(JobLabels(run.metadata.name, config.stage, config.iteration, config.attempt))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": build_metadata(run, name, labels),
        "immutable": True,
        "data": {CONFIG_FILE: config.to_json(indent=2)},
    }
