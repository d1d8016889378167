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
from dynalign_contract.errors import StageError, TerminatedError
from dynalign_contract.manifest import read_listed
from dynalign_contract.result import PublishedPlace
from dynalign_contract.settings import PublishTarget, publish_credentials
from dynalign_trainer.export.bucket import push_to_bucket
from dynalign_trainer.export.pushing import Export, Push
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.stores.place import StorePlace, read_credentials
from dynalign_trainer.stores.s3 import open_folder

log = logging.getLogger("dynalign.export")


class PublishFailedError(StageError):
    """An error that no code expected came while the export was published; retriable."""

    reason = "PublishFailed"


def publish(
    targets: Sequence[PublishTarget], folder: Path, port: int, stopping: threading.Event
) -> tuple[PublishedPlace, ...]:
    """Copy the export in `folder`, whose manifest is written, to every target; serves progress at `port`.

    Raises StageError naming the target, the cause and the remedy: BadConfigError where a retry cannot help.
    """
    telemetry = Telemetry()
    server = telemetry.serve(port)
    export = Export(folder, read_listed(folder))
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
    bucket = target.s3
    assert bucket is not None  # noqa: S101 - a rule of the API
    place = StorePlace(field, bucket.uri, bucket.address, f"{field}.credentialsSecretRef", publish_credentials(index))
    keys = read_credentials(place, os.environ)
    changed = push_to_bucket(open_folder(bucket, bucket.bucket, bucket.prefix, place, keys), export, push)
    log.info("%s: %s", place.name, "published and read back" if changed else "holds this very export already")
    return PublishedPlace(uri=bucket.uri)
