"""Stored objects as runs: parsed once a version, and refused one by one."""

import contextlib
from collections import OrderedDict
from functools import cache
from typing import Final

from pydantic import ValidationError

from dynalign_contract.stages import Stage
from dynalign_operator.api.schema import Schema, structural_schema
from dynalign_operator.api.status import AlignmentRunStatus, Condition, StageStatus
from dynalign_operator.api.stored import read_stored_status
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.store import Kind, Store, Version
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.planning.stored_run import StoredRun
from dynalign_operator.runfile.problems import describe_error, locate_error, name_field

_KEPT: Final = 128
"""Parsed runs that are kept; one of ten iterations takes nearly a megabyte, a hundred times what is stored of it."""


class InvalidRunError(ClusterError):
    """The stored object is not a valid run; the message says which fields are wrong."""

    def __init__(self, stored: KubernetesObject, message: str) -> None:
        super().__init__(message)
        self.stored = stored_run(stored)


class RunReader:
    """The runs of a store as values; those that were asked for last are kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parsed: OrderedDict[RunKey, tuple[Version, AlignmentRun]] = OrderedDict()

    @property
    def kept(self) -> int:
        """How many runs are kept as values."""
        return len(self._parsed)

    def read(self, key: RunKey) -> AlignmentRun | None:
        """The run in the version that the store has; None when there is none, or when it is being deleted.

        Raises InvalidRunError.
        """
        version = self._store.version(Kind.RUN, key)
        kept = self._parsed.get(key)
        if version is not None and kept is not None and kept[0] == version:
            self._parsed.move_to_end(key)
            return kept[1]
        self._parsed.pop(key, None)
        stored = self._store.get(Kind.RUN, key)
        if version is None or stored is None or "deletionTimestamp" in stored["metadata"]:
            return None
        run = parse_run(stored)
        if not self._store.is_settled(key):
            self._parsed[key] = (version, run)
        while len(self._parsed) > _KEPT:
            self._parsed.popitem(last=False)
        return run


def parse_run(stored: KubernetesObject) -> AlignmentRun:
    """The run as a value. Raises InvalidRunError where the schema in the cluster let in what dynalign does not take."""
    try:
        status = read_stored_status(stored.get("status"))
    except ValidationError as error:
        text = f"{_sentences(error, 'status')} Another version of the operator wrote it; run that one, or a later one."
        raise InvalidRunError(stored, text) from error
    try:
        run = AlignmentRun.model_validate({**stored, "status": {}})
    except ValidationError as error:
        raise InvalidRunError(stored, _sentences(error)) from error
    return run.with_status(status)


def stored_run(stored: KubernetesObject) -> StoredRun:
    """Identity and status of a stored object, valid or not; of a status that cannot be read the conditions alone."""
    metadata = stored["metadata"]
    try:
        status, is_readable = read_stored_status(stored.get("status")), True
    except ValidationError:
        conditions = _readable_conditions(stored)
        status, is_readable = AlignmentRunStatus(fetch=StageStatus(stage=Stage.FETCH), conditions=conditions), False
    return StoredRun(
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=int(metadata.get("generation", 1)),
        resource_version=metadata.get("resourceVersion", ""),
        status=status,
        is_status_readable=is_readable,
    )


def _readable_conditions(stored: KubernetesObject) -> tuple[Condition, ...]:
    """The conditions of a stored run, without those that this version cannot read."""
    found: list[Condition] = []
    status = stored.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    for condition in conditions if isinstance(conditions, list) else ():
        with contextlib.suppress(ValidationError):
            found.append(Condition.model_validate(condition))
    return tuple(found)


def _sentences(error: ValidationError, *above: str) -> str:
    schema: Schema = _schema()
    for name in above:
        schema = schema["properties"][name]
    sentences = (
        f"{name_field((*above, *locate_error(detail)))} {describe_error(detail, schema)}".strip().rstrip(".")
        for detail in error.errors(include_url=False)
    )
    return "; ".join(sentences) + "."


@cache
def _schema() -> Schema:
    return structural_schema(AlignmentRun)
