"""What all of a run's objects have in common."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from dynalign_contract.base import Model
from dynalign_operator.api.v1alpha1 import API_VERSION, KIND, AlignmentRun

KubernetesObject = dict[str, Any]
"""A manifest, as it would be written in YAML."""

_HASH: Final = 8
"""Hexadecimal digits."""


def shorten(name: str, longest: int) -> str:
    """The name, or its beginning and a hash of the whole, so that no two long names become the same short one."""
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH]
    return f"{name[: longest - _HASH - 1].rstrip('-')}-{digest}"


def build_metadata(run: AlignmentRun, name: str, labels: Mapping[str, str]) -> KubernetesObject:
    """Name, namespace, labels, and the run as owner, whose deletion deletes the object too.

    A run that no cluster has stored yet (`dynalign render`) has no uid and owns nothing.
    """
    metadata: KubernetesObject = {"name": name, "namespace": run.metadata.namespace, "labels": dict(labels)}
    if run.metadata.uid:
        metadata["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": run.metadata.name,
                "uid": run.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    return metadata


def dump(model: Model) -> KubernetesObject:
    """A part of the specification that has the names of Kubernetes' own fields, as a part of a manifest."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
