"""`s3://bucket/folder`: a model in a bucket."""

import os
from pathlib import Path

from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import MAX_MANIFEST_BYTES, Manifest
from dynalign_contract.sources import S3Source
from dynalign_contract.stores import MODEL_CREDENTIALS, S3Server
from dynalign_trainer.fetch.copying import Watch
from dynalign_trainer.fetch.remote import RemoteFile, RemoteModel, fetch_remote
from dynalign_trainer.models.origin import Origin, write_origin
from dynalign_trainer.preflight.checks import Inspection
from dynalign_trainer.stores.place import StorePlace, read_credentials
from dynalign_trainer.stores.s3 import S3Folder, StoredObject, open_folder


def fetch_bucket(source: S3Source, server: S3Server | None, target: Path, watch: Watch, inspection: Inspection) -> None:
    """Download the model; digests come from the manifest that dynalign publishes beside it, else from the objects.

    Raises BadConfigError when the bucket is missing or refuses the keys, StoreUnreachableError when its server does not
    answer, and what `fetch_remote` raises. Objects without a digest are noted.
    """
    server = server or S3Server()
    place = StorePlace(
        "spec.model.uri", source.uri, server.address, "spec.model.credentialsSecretRef", MODEL_CREDENTIALS.names
    )
    keys = read_credentials(place, os.environ)
    folder = open_folder(server, source.bucket, source.prefix, place, keys)
    objects = folder.objects()
    if not objects:
        raise place.missing("there is nothing in this folder", "Check the spelling of the address")
    digests = _listed_digests(folder, objects)
    files = {
        name: RemoteFile(found.size, found.etag, digests.get(name))
        for name, found in objects.items()
        if name and not name.startswith(".") and not name.endswith("/")
    }
    model = RemoteModel(
        where=f"spec.model.uri: {source.uri}",
        files=files,
        read=lambda name, start: folder.read(name, start, objects[name].etag),
    )
    if not digests:
        inspection.findings.notes.append(
            f"spec.model.uri: {source.uri} has no {MANIFEST} of dynalign with the digests of its files, so that their "
            "sizes alone were compared"
        )
    fetch_remote(model, target, watch, inspection)
    write_origin(target, Origin(uri=source.uri))


def _listed_digests(folder: S3Folder, objects: dict[str, StoredObject]) -> dict[str, str]:
    """Name -> digest, from the manifest that was published with the model; empty where there is none."""
    if MANIFEST not in objects or objects[MANIFEST].size > MAX_MANIFEST_BYTES:
        return {}
    try:
        manifest = Manifest.decode(b"".join(folder.read(MANIFEST)))
    except ValueError:  # another program's file of this name
        return {}
    return {file.name: file.sha256 for file in manifest.files}
