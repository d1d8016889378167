"""An export as an OCI artifact in the layout of ModelPack, the CNCF's model specification: one layer a file, as it is.

https://github.com/modelpack/model-spec. A data set is laid out alike, under a type of its own. Nothing in it depends on
the time: the same export has the same digest.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from dynalign_contract.manifest import ArtifactFile, Manifest
from dynalign_contract.settings import PublishContent
from dynalign_trainer.export.pushing import Export
from dynalign_trainer.stores.registry import MANIFEST_TYPE, digest_of

ARTIFACT_TYPE: Final = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE: Final = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_TYPE: Final = "application/vnd.cncf.model.weight.config.v1.raw"
DOC_TYPE: Final = "application/vnd.cncf.model.doc.v1.raw"
FILE_PATH: Final = "org.cncf.model.filepath"
TITLE: Final = "org.opencontainers.image.title"
"""How general clients such as oras name a layer's file."""
DATA_TYPE: Final = "application/vnd.dynalign.data.v1"
"""Type of an artifact that is a data set: Parquet files and a card."""
PARQUET_TYPE: Final = "application/vnd.apache.parquet"
MARKDOWN_TYPE: Final = "text/markdown"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
"""Type of the configuration of an artifact that has none (OCI image specification 1.1)."""
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


def build_pack(export: Export) -> ModelPack:
    """The artifact of what is pushed."""
    if export.content is PublishContent.DATA:
        return build_data_pack(export.run, export.manifest)
    return build_model_pack(export.run, export.manifest, json.loads((export.folder / "config.json").read_bytes()))


def build_data_pack(run: str, data: Manifest) -> ModelPack:
    """The artifact of a data set."""
    layers = [
        _layer(file, MARKDOWN_TYPE if file.name.endswith(".md") else PARQUET_TYPE)
        for file in sorted(data.files, key=lambda file: file.name)
    ]
    return _pack(run, data, DATA_TYPE, (EMPTY_TYPE, b"{}"), layers)


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
    layers = [_layer(file, _media_type(file.name)) for file in files]
    return _pack(run, export, ARTIFACT_TYPE, (CONFIG_TYPE, described), layers)


def _pack(
    run: str, contents: Manifest, artifact_type: str, config: tuple[str, bytes], layers: list[dict[str, Any]]
) -> ModelPack:
    kind, described = config
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type,
        "config": {"mediaType": kind, "digest": digest_of(described), "size": len(described)},
        "layers": layers,
        "annotations": {TITLE: run, EXPORT_DIGEST: contents.digest},
    }
    return ModelPack(described, json.dumps(manifest).encode())


def _technical(config: dict[str, Any]) -> dict[str, str]:
    """Architecture and precision, where config.json says them."""
    named = {"architecture": config.get("model_type"), "precision": config.get("dtype") or config.get("torch_dtype")}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _layer(file: ArtifactFile, media_type: str) -> dict[str, Any]:
    return {
        "mediaType": media_type,
        "digest": f"sha256:{file.sha256}",
        "size": file.bytes,
        "annotations": {FILE_PATH: file.name, TITLE: file.name},
    }


def _media_type(name: str) -> str:
    if name.endswith(".safetensors"):
        return WEIGHT_TYPE
    return DOC_TYPE if name.endswith(".md") else WEIGHT_CONFIG_TYPE
