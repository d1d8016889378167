"""Copies of the finished export, and of the run's data, in stores: pushed, read back, and left alone where they are.

The export is only read, so that a push that fails leaves it as it was, and the next attempt of the stage pushes again
without exporting again.
"""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from dynalign_contract.config import ExportParams, StageConfig
from dynalign_contract.console import print_traceback
from dynalign_contract.errors import BadConfigError, StageError, TerminatedError
from dynalign_contract.result import PublishedPlace
from dynalign_contract.settings import (
    HubTarget,
    OciTarget,
    PublishContent,
    PublishTarget,
    S3Target,
    publish_credentials,
    publish_token,
)
from dynalign_contract.sources import HubSource, OciSource
from dynalign_trainer.export.artifact import push_to_registry
from dynalign_trainer.export.bucket import push_to_bucket
from dynalign_trainer.export.contents import open_contents
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
    config: StageConfig, params: ExportParams, root: Path, port: int, stopping: threading.Event
) -> tuple[PublishedPlace, ...]:
    """Copy the export of the run below `root`, whose manifest is written, or its data to every target.

    Serves progress at `port`. Raises StageError naming the target, the cause and the remedy: BadConfigError where a
    retry cannot help.
    """
    telemetry = Telemetry()
    server = telemetry.serve(port)
    try:
        with open_contents(config, params, root) as contents:
            return _publish_all(params.publish, contents, telemetry, stopping)
    except OSError as error:
        # Told as an error of the stage itself, it would leave its mark in the export's folder.
        raise PublishFailedError(
            f"spec.export.publish: the run's data could not be written to its volume ({error}). The export itself is "
            "whole; make space, and the next attempt publishes it."
        ) from error
    finally:
        server.close()


def _publish_all(
    targets: Sequence[PublishTarget],
    contents: Mapping[PublishContent, Export],
    telemetry: Telemetry,
    stopping: threading.Event,
) -> tuple[PublishedPlace, ...]:
    total = 2 * sum(file.bytes for target in targets for file in contents[target.content].manifest.files)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        telemetry.progress(done, total)
        if stopping.is_set():
            raise TerminatedError("stopped by SIGTERM; what is published stays, and the next attempt goes on from it")

    advance(0)
    push = Push(advance)
    return tuple(_publish(index, target, contents[target.content], push) for index, target in enumerate(targets))


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
            if export.content is PublishContent.DATA:
                uri = f"hf://datasets/{hub.repository}@{commit}"
        case None:
            raise BadConfigError(f"spec.export.publish[{index}] names no place.")
    log.info("%s: %s", place.name, "published and read back" if changed else "holds this very export already")
    return PublishedPlace(uri=uri)


def _place(field: str, target: S3Target | OciTarget, index: int) -> StorePlace:
    variables = publish_credentials(index)
    docker_config = variables.docker_config if isinstance(target, OciTarget) else ""
    reference = f"{field}.credentialsSecretRef"
    return StorePlace(field, target.uri, target.url, reference, variables.names, docker_config)
