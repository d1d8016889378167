"""References to Kubernetes objects in the run's namespace. A stage sees what they name, never the objects."""

from dynalign_contract.base import Model
from dynalign_contract.names import DataKey, ObjectName


class SecretKeyRef(Model):
    """A key of a Secret in the run's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey
    """Under which the Secret holds the token."""


class CredentialsRef(Model):
    """A user name and a password in a Secret of the run's namespace, such as one of type kubernetes.io/basic-auth."""

    name: ObjectName
    """Name of the Secret."""
    username_key: DataKey = "username"
    """Key under which the Secret holds the user name, or the ID of an S3 access key."""
    password_key: DataKey = "password"  # noqa: S105 - the name of a key
    """Key under which the Secret holds the password or token, or the secret part of an S3 access key."""

    @property
    def username(self) -> SecretKeyRef:
        """Reference to the user name."""
        return SecretKeyRef(name=self.name, key=self.username_key)

    @property
    def password(self) -> SecretKeyRef:
        """Reference to the password."""
        return SecretKeyRef(name=self.name, key=self.password_key)
