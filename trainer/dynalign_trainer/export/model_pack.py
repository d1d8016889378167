"""An export as an OCI artifact in the layout of ModelPack, the CNCF's model specification: one layer a file, as it is.

https://github.com/modelpack/model-spec. Nothing in it depends on the time: the same export has the same digest.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from dynalign_contract.manifest import ArtifactFile, Manifest
from dynalign_trainer.stores.registry import MANIFEST_TYPE, digest_of

ARTIFACT_TYPE: Final = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE: Final = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_TYPE: Final = "application/vnd.cncf.model.weight.config.v1.raw"
DOC_TYPE: Final = "application/vnd.cncf.model.doc.v1.raw"
FILE_PATH: Final = "org.cncf.model.filepath"
TITLE: Final = "org.opencontainers.image.title"
"""How general clients such as oras name a layer's file."""
EXPORT_DIGEST: Final = "io.dynalign.export.digest"


@dataclass(frozen=True)
class ModelPack:
    """The two JSON documents of an artifact; its layers are the files of the export."""

    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        """Digest of the manifest, by which the artifact is pulled."""
        return digest_of(self.manifest)


def build_model_pack(run: str, export: Manifest, config: dict[str, Any]) -> ModelPack:
    """The artifact of an export; `config` is the model's own config.json."""
    files = sorted(export.files, key=lambda file: file.name)
    described = json.dumps(
        {
            "descriptor": {"name": run},
            "config": {"format": "safetensors", **_technical(config)},
            "modelfs": {"type": "layers", "diffIds": [f"sha256:{file.sha256}" for file in files]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(described), "size": len(described)},
        "layers": [_layer(file) for file in files],
        "annotations": {TITLE: run, EXPORT_DIGEST: export.digest},
    }
    return ModelPack(described, json.dumps(manifest).encode())


def _technical(config: dict[str, Any]) -> dict[str, str]:
    """Architecture and precision, where config.json says them."""
    named = {"architecture": config.get("model_type"), "precision": config.get("dtype") or config.get("torch_dtype")}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _layer(file: ArtifactFile) -> dict[str, Any]:
    return {
        "mediaType": _media_type(file.name),
        "digest": f"sha256:{file.sha256}",
        "size": file.bytes,
        "annotations": {FILE_PATH: file.name, TITLE: file.name},
    }


def _media_type(name: str) -> str:
    if name.endswith(".safetensors"):
        return WEIGHT_TYPE
    return DOC_TYPE if name.endswith(".md") else WEIGHT_CONFIG_TYPE
