"""Where the export stage publishes the model, beside the run's volume."""

from typing import Annotated, Final

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.names import form
from dynalign_contract.references import CredentialsRef
from dynalign_contract.sources import BUCKET, BUCKET_FORM, KEY_PREFIX, REGISTRY, REPOSITORY, TAG
from dynalign_contract.stores import CredentialVariables, OciServer, S3Server

MAX_TARGETS: Final = 4
"""Places to which a run publishes."""


class S3Target(S3Server):
    """A folder of a bucket."""

    bucket: Annotated[str, Field(pattern=f"^{BUCKET}$", max_length=63, json_schema_extra=form(BUCKET_FORM))]
    """Name of the bucket, which exists."""
    prefix: str = Field(
        pattern=f"^{KEY_PREFIX}$",
        max_length=256,
        json_schema_extra=form("a folder without .. and without / at its ends, for example models/my-run"),
    )
    """Folder in the bucket. Files of the same names are replaced, others are left alone."""
    credentials_secret_ref: CredentialsRef | None = None
    """Access key. `dynalign run` takes it from the environment: DYNALIGN_PUBLISH_0_USERNAME and
    DYNALIGN_PUBLISH_0_PASSWORD for the first entry. Default: requests are not signed."""

    @property
    def url(self) -> str:
        """URL of the server."""
        return self.address

    @property
    def uri(self) -> str:
        """Address of the published folder, as `spec.model.uri` takes it."""
        return f"s3://{self.bucket}/{self.prefix}"


class OciTarget(OciServer):
    """A tag of a repository in an OCI registry."""

    registry: str = Field(
        pattern=f"^{REGISTRY}$",
        max_length=256,
        json_schema_extra=form("the host of a registry, with its port if need be, such as registry.example.com:5000"),
    )
    """Host of the registry, with its port where that is not the usual one."""
    repository: str = Field(
        pattern=f"^{REPOSITORY}$",
        max_length=200,
        json_schema_extra=form("a repository of lower-case letters, digits and inner -_./, such as models/my-run"),
    )
    """Name of the repository within the registry."""
    tag: str = Field(
        default="latest",
        pattern=f"^{TAG}$",
        max_length=128,
        json_schema_extra=form("a tag of letters, digits and _.-, such as v1"),
    )
    """Tag that names the artifact; one that exists is moved."""
    credentials_secret_ref: CredentialsRef | None = None
    """User name and password or token. `dynalign run` takes them from the environment: DYNALIGN_PUBLISH_0_USERNAME and
    DYNALIGN_PUBLISH_0_PASSWORD for the first entry. Default: none are sent."""

    @property
    def url(self) -> str:
        """URL of the registry."""
        return self.address(self.registry)

    @property
    def uri(self) -> str:
        """Address of the tag, as `spec.model.uri` takes it."""
        return f"oci://{self.registry}/{self.repository}:{self.tag}"


class PublishTarget(Model):
    """One place to which the exported model is copied. Exactly one field is set."""

    oci: OciTarget | None = Field(default=None, exclude_if=lambda target: target is None)
    """An OCI registry, as an artifact in the layout of ModelPack."""

    s3: S3Target | None = Field(default=None, exclude_if=lambda target: target is None)
    """A bucket of an S3-compatible server."""

    @property
    def place(self) -> S3Target | OciTarget | None:
        """The field that is set."""
        return self.s3 or self.oci

    @property
    def kind(self) -> str:
        """Name of the field that is set, as the run file has it."""
        return "oci" if self.s3 is None else "s3"


PublishTargets = Annotated[tuple[PublishTarget, ...], Field(max_length=MAX_TARGETS)]
"""The places to which a run publishes."""

PUBLISH_KEY_VARIABLES: Final = r"DYNALIGN_PUBLISH_[0-9]+_(USERNAME|PASSWORD)"
"""Environment variables that hold keys of the places to publish to, as a regular expression."""


def publish_credentials(index: int) -> CredentialVariables:
    """Variables with the credentials of the target at `index` of `spec.export.publish`."""
    return CredentialVariables(f"DYNALIGN_PUBLISH_{index}_USERNAME", f"DYNALIGN_PUBLISH_{index}_PASSWORD")
