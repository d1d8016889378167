"""References to Kubernetes objects in the run's namespace. A stage sees what they name, never the objects."""

from typing import Final

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.names import DataKey, ObjectName

DOCKER_CONFIG_KEY: Final = ".dockerconfigjson"
"""Key of a Docker configuration in a Secret of type kubernetes.io/dockerconfigjson."""


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
    docker_config_key: DataKey | None = Field(default=None, exclude_if=lambda key: key is None)
    """For OCI registries, in place of user name and password: key under which the Secret holds a Docker configuration.
    In a Secret of type kubernetes.io/dockerconfigjson it is `.dockerconfigjson`. Its entry for the registry counts."""

    @property
    def docker_config(self) -> SecretKeyRef | None:
        """Reference to the Docker configuration; None where the Secret has user name and password."""
        return None if self.docker_config_key is None else SecretKeyRef(name=self.name, key=self.docker_config_key)

    @property
    def username(self) -> SecretKeyRef:
        """Reference to the user name."""
        return SecretKeyRef(name=self.name, key=self.username_key)

    @property
    def password(self) -> SecretKeyRef:
        """Reference to the password."""
        return SecretKeyRef(name=self.name, key=self.password_key)
