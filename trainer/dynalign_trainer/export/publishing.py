"""Copies of the finished export in stores: pushed, read back, and left alone where they are there already.

The export is only read, so that a push that fails leaves it as it was, and the next attempt of the stage pushes again
without exporting again.
"""

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from dynalign_contract.console import print_traceback
from dynalign_contract.errors import BadConfigError, StageError, TerminatedError
from dynalign_contract.manifest import read_listed
from dynalign_contract.result import PublishedPlace
from dynalign_contract.settings import (
    HubTarget,
    OciTarget,
    PublishTarget,
    S3Target,
    publish_credentials,
    publish_token,
)
from dynalign_contract.sources import HubSource, OciSource
from dynalign_trainer.export.artifact import push_to_registry
from dynalign_trainer.export.bucket import push_to_bucket
from dynalign_trainer.export.hub_repository import hub_server, push_to_hub
from dynalign_trainer.export.pushing import Export, Push
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.stores.place import StorePlace, read_credentials, read_token
from dynalign_trainer.stores.registry import Repository
from dynalign_trainer.stores.s3 import open_folder

log = logging.getLogger("dynalign.export")


class PublishFailedError(StageError):
    """An error that no code expected came while the export was published; retriable."""

    reason = "PublishFailed"


def publish(
    run: str, targets: Sequence[PublishTarget], folder: Path, port: int, stopping: threading.Event
) -> tuple[PublishedPlace, ...]:
    """Copy the export of a run in `folder`, whose manifest is written, to every target; serves progress at `port`.

    Raises StageError naming the target, the cause and the remedy: BadConfigError where a retry cannot help.
    """
    telemetry = Telemetry()
    server = telemetry.serve(port)
    export = Export(run, folder, read_listed(folder))
    total = 2 * len(targets) * sum(file.bytes for file in export.manifest.files)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        telemetry.progress(done, total)
        if stopping.is_set():
            raise TerminatedError("stopped by SIGTERM; what is published stays, and the next attempt goes on from it")

    try:
        advance(0)
        return tuple(_publish(index, target, export, Push(advance)) for index, target in enumerate(targets))
    finally:
        server.close()


def _publish(index: int, target: PublishTarget, export: Export, push: Push) -> PublishedPlace:
    field = f"spec.export.publish[{index}].{target.kind}"
    try:
        return _push(index, target, export, push)
    except StageError:
        raise
    except Exception as error:
        # Told as an error of the stage itself, it would leave its mark in the export's folder.
        print_traceback(error)
        raise PublishFailedError(
            f"{field}: the export could not be published ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
            ". The export itself is whole; the next attempt publishes it again, and the log has the traceback."
        ) from error


def _push(index: int, target: PublishTarget, export: Export, push: Push) -> PublishedPlace:
    field = f"spec.export.publish[{index}].{target.kind}"
    match target.place:
        case S3Target() as bucket:
            place = _place(field, bucket, index)
            folder = open_folder(bucket, bucket.bucket, bucket.prefix, place, read_credentials(place, os.environ))
            changed, uri = push_to_bucket(folder, export, push), bucket.uri
        case OciTarget() as tag:
            place = _place(field, tag, index)
            repository = Repository(place, tag.repository, read_credentials(place, os.environ))
            digest, changed = push_to_registry(repository, tag.tag, export, push)
            uri = OciSource(tag.registry, tag.repository, digest).uri
        case HubTarget() as hub:
            reference = f"{field}.tokenSecretRef"
            place = StorePlace(field, hub.uri, hub_server(), reference, (publish_token(index),))
            commit, changed = push_to_hub(hub, read_token(place, os.environ), export, push, place)
            uri = HubSource(hub.repository, commit).uri
        case None:
            raise BadConfigError(f"spec.export.publish[{index}] names no place.")
    log.info("%s: %s", place.name, "published and read back" if changed else "holds this very export already")
    return PublishedPlace(uri=uri)


def _place(field: str, target: S3Target | OciTarget, index: int) -> StorePlace:
    return StorePlace(field, target.uri, target.url, f"{field}.credentialsSecretRef", publish_credentials(index).names)
