"""The run's volume."""

from typing import Final

from dynalign_operator.api.rules.rule import Rule
from dynalign_operator.api.v1alpha1 import AccessMode, StorageSpec

_DEFAULT_SIZE: Final[str] = StorageSpec().size

STORAGE_RULES: Final = (
    Rule(
        at="spec.storage",
        field="existingClaim",
        cel=f"!has(self.existingClaim) || (string(self.size) == '{_DEFAULT_SIZE}' && !has(self.storageClassName))",
        message="is used as it is; remove size and storageClassName, which are for a new claim",
        holds=lambda storage: (
            storage.existing_claim is None or (storage.size == _DEFAULT_SIZE and storage.storage_class_name is None)
        ),
    ),
    Rule(
        at="spec",
        field="storage.accessMode",
        cel="self.training.nodes == 1 || self.storage.accessMode == 'ReadWriteMany'",
        message="must be ReadWriteMany when training.nodes is more than 1, for every node mounts the volume; set it, "
        "or set training.nodes to 1",
        holds=lambda s: s.training.nodes == 1 or s.storage.access_mode is AccessMode.READ_WRITE_MANY,
    ),
    Rule(
        at="spec",
        field="storage.accessMode",
        cel="self.generation.shards == 1 || self.storage.accessMode == 'ReadWriteMany'",
        message="must be ReadWriteMany when generation.shards is more than 1, for every shard may get a node of its "
        "own; set it, or set generation.shards to 1",
        holds=lambda s: s.generation.shards == 1 or s.storage.access_mode is AccessMode.READ_WRITE_MANY,
    ),
)
