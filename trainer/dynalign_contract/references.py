"""References to Kubernetes objects in the run's namespace. A stage sees what they name, never the objects."""

from dynalign_contract.base import Model
from dynalign_contract.names import DataKey, ObjectName


class SecretKeyRef(Model):
    """A key of a Secret in the run's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey
    """Under which the Secret holds the token."""
