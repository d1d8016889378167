"""The headless Service through which the pods of a training gang find each other."""

from typing import Final

from dynalign_contract.config import StageConfig
from dynalign_contract.pod_paths import RENDEZVOUS_PORT
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.labels import RUN, STAGE, run_labels
from dynalign_operator.manifests.objects import KubernetesObject, build_metadata, shorten

_LONGEST: Final = 63
"""Characters of a Service's name."""


def service_name(run: AlignmentRun) -> str:
    """Name of the run's Service; it begins with a letter, as it must, although a run's may begin with a digit."""
    return shorten(f"train-{run.metadata.name}", _LONGEST)


def coordinator(run: AlignmentRun, job: str) -> str:
    """`host:port` of a gang's rank 0, in the run's own namespace."""
    return f"{job}-0.{service_name(run)}:{RENDEZVOUS_PORT}"


def build_service(run: AlignmentRun, config: StageConfig) -> KubernetesObject | None:
    """One Service for all gangs of the run; None for a stage of independent pods.

    Pods are published before they are ready: a gang meets in order to become so.
    """
    if config.nodes == 1:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(run, service_name(run), run_labels(run.metadata.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {RUN: run.metadata.name, STAGE: str(Stage.TRAIN)},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }
