"""Servers that keep models: where they are, and in which variables a stage has the keys for them."""

from dataclasses import dataclass, field
from typing import Final

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.endpoints import URL_PATTERN
from dynalign_contract.names import form

AWS: Final = "https://s3.amazonaws.com"
"""The server behind S3 addresses where no endpoint is given, for rules about hosts."""


class S3Server(Model):
    """A server that speaks S3, and how it is asked."""

    endpoint: str | None = Field(
        default=None,
        pattern=URL_PATTERN,
        max_length=1024,
        json_schema_extra=form("the address of an S3 server, without bucket and key, such as https://minio:9000"),
    )
    """Address of the server, without bucket and key. With credentials it begins with https, unless the host is inside
    the cluster: a Service's bare name, or `NAME.NAMESPACE.svc`. Link-local addresses and those of metadata services
    are refused, and in a cluster the pod's own. Default: AWS."""
    region: str = Field(
        default="us-east-1",
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        max_length=64,
        json_schema_extra=form("a region such as eu-central-1"),
    )
    """Region that requests are signed for. Most servers beside AWS take any."""
    path_style: bool | None = None
    """Whether the bucket stands in the path of a request instead of the host's name. Default: true with `endpoint`."""

    @property
    def address(self) -> str:
        """URL of the server, also of the one that is asked by default."""
        return self.endpoint or AWS

    @property
    def uses_paths(self) -> bool:
        """Whether the bucket stands in the path."""
        return self.endpoint is not None if self.path_style is None else self.path_style


class OciServer(Model):
    """How an OCI registry is asked."""

    plain_http: bool = False
    """Ask by HTTP without TLS. With credentials only for hosts inside the cluster: a Service's bare name, or
    `NAME.NAMESPACE.svc`."""

    def address(self, registry: str) -> str:
        """URL of a registry, named by host and port."""
        return f"{'http' if self.plain_http else 'https'}://{registry}"


@dataclass(frozen=True)
class Credentials:
    """Who asks, and what proves it."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class CredentialVariables:
    """Environment variables that hold a user name and a password, or a Docker configuration in their place."""

    username: str
    password: str
    docker_config: str

    @property
    def names(self) -> tuple[str, str]:
        """Variables of user name and password."""
        return self.username, self.password


MODEL_CREDENTIALS: Final = CredentialVariables(
    "DYNALIGN_MODEL_USERNAME", "DYNALIGN_MODEL_PASSWORD", "DYNALIGN_MODEL_DOCKER_CONFIG"
)
"""Keys of `spec.model.credentialsSecretRef`, for the fetch stage."""
