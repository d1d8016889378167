"""`oci://registry/repository:tag`: a model in an OCI registry, whose layers are its files."""

import json
import os
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.sources import OciSource
from dynalign_contract.stores import MODEL_CREDENTIALS, OciServer
from dynalign_trainer.fetch.copying import Watch
from dynalign_trainer.fetch.remote import RemoteFile, RemoteModel, fetch_remote
from dynalign_trainer.models.origin import Origin, read_origin, write_origin
from dynalign_trainer.preflight.checks import Inspection
from dynalign_trainer.stores.place import StorePlace, read_credentials
from dynalign_trainer.stores.registry import LONGEST_MANIFEST, Repository, digest_of

_NAMES: Final = ("org.cncf.model.filepath", "org.opencontainers.image.title")
"""Annotations of a layer that name its file."""
_PINNED: Final = "sha256:"


def fetch_artifact(
    source: OciSource, server: OciServer | None, target: Path, watch: Watch, inspection: Inspection
) -> None:
    """Download the files of a model artifact; `source.json` records the digest that the tag meant.

    Raises BadConfigError when the registry refuses the keys or has no such artifact, BadInputError when its layers are
    not files as they are, StoreUnreachableError when it does not answer, and what `fetch_remote` raises.
    """
    place = StorePlace(
        "spec.model.uri",
        source.uri,
        (server or OciServer()).address(source.registry),
        "spec.model.credentialsSecretRef",
        MODEL_CREDENTIALS.names,
        MODEL_CREDENTIALS.docker_config,
    )
    repository = Repository(place, source.repository, read_credentials(place, os.environ), rights="pull")
    earlier = read_origin(target)
    pinned = earlier.commit if earlier is not None and earlier.commit is not None else source.reference
    text = repository.find_manifest(pinned)
    if text is None:
        raise place.missing(f"there is no artifact {source.reference!r}", "Correct the tag or digest")
    where = f"spec.model.uri: {source.uri}"
    if len(text) > LONGEST_MANIFEST or (pinned.startswith(_PINNED) and digest_of(text) != pinned):
        raise BadInputError(f"{where}: its manifest does not have the digest {pinned}. Publish the model again.")
    write_origin(target, Origin(uri=source.uri, commit=digest_of(text)))
    layers = _layers(text, where)
    files = {name: RemoteFile(size, digest, digest.removeprefix(_PINNED)) for name, (digest, size) in layers.items()}
    model = RemoteModel(where, files, lambda name, start: repository.read_blob(layers[name][0], start))
    fetch_remote(model, target, watch, inspection)


def _layers(text: bytes, where: str) -> dict[str, tuple[str, int]]:
    """Name -> digest and size of each layer that is a file. Raises BadInputError."""
    try:
        manifest: Any = json.loads(text)
        found = {_name(layer): (str(layer["digest"]), int(layer["size"])) for layer in manifest["layers"]}
        packed = next((layer["mediaType"] for layer in manifest["layers"] if ".tar" in layer["mediaType"]), None)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadInputError(
            f"{where} is no artifact whose layers are files ({type(error).__name__}: {error}): each needs the "
            f"annotation {' or '.join(_NAMES)}. Name an artifact in the layout of ModelPack, with raw layers."
        ) from error
    if packed is not None:
        raise BadInputError(
            f"{where} has layers of the type {packed}, which are archives. Build the artifact with raw layers, one a "
            "file, as dynalign publishes it."
        )
    if wrong := next((digest for digest, _ in found.values() if not digest.startswith(_PINNED)), None):
        raise BadInputError(f"{where} has the digest {wrong}; only sha256 is known. Build the artifact again.")
    return found


def _name(layer: dict[str, Any]) -> str:
    annotations = layer["annotations"]
    return str(annotations[next((name for name in _NAMES if name in annotations), _NAMES[0])])
