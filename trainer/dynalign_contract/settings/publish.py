"""Where the export stage publishes the model, beside the run's volume."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.names import form
from dynalign_contract.references import CredentialsRef, SecretKeyRef
from dynalign_contract.sources import BUCKET, BUCKET_FORM, HUB_NAME, KEY_PREFIX, REGISTRY, REPOSITORY, TAG
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
    """User name and password or token, or a Docker configuration that has them. `dynalign run` takes them from the
    environment: DYNALIGN_PUBLISH_0_USERNAME and DYNALIGN_PUBLISH_0_PASSWORD for the first entry, or
    DYNALIGN_PUBLISH_0_DOCKER_CONFIG with `dockerConfigKey`. Default: none are sent."""

    @property
    def url(self) -> str:
        """URL of the registry."""
        return self.address(self.registry)

    @property
    def uri(self) -> str:
        """Address of the tag, as `spec.model.uri` takes it."""
        return f"oci://{self.registry}/{self.repository}:{self.tag}"


class HubTarget(Model):
    """A branch of a repository of the model hub."""

    repository: str = Field(
        pattern=f"^{HUB_NAME}/{HUB_NAME}$",
        max_length=96,
        json_schema_extra=form("a repository of the hub, such as my-team/my-model"),
    )
    """Repository, which is made if there is none: of models, or with `content: Data` of data sets."""
    revision: str = Field(
        default="main",
        pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$",
        max_length=64,
        json_schema_extra=form("a branch of letters, digits and inner _.-, such as v1"),
    )
    """Branch, which is made from `main` if there is none."""
    private: bool = True
    """Whether a repository that is made is private; one that exists stays as it is."""
    license: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        max_length=64,
        json_schema_extra=form("a licence as the hub names it, such as apache-2.0"),
    )
    """Licence in the card. Default: none is named; that of the base model applies."""
    token_secret_ref: SecretKeyRef
    """Token that may write to the repository. `dynalign run` takes it from the environment: DYNALIGN_PUBLISH_0_TOKEN
    for the first entry."""

    @property
    def uri(self) -> str:
        """Address of the branch, as `spec.model.uri` takes it."""
        return f"hf://{self.repository}@{self.revision}"


class PublishContent(StrEnum):
    """What is copied to a place."""

    MODEL = "Model"
    """The exported model."""
    DATA = "Data"
    """The run's prompts, answers and scores, and preference pairs, as `dynalign export-data` writes them."""


class PublishTarget(Model):
    """One place to which a run's results are copied. Exactly one of `hub`, `oci` and `s3` is set."""

    content: PublishContent = Field(
        default=PublishContent.MODEL, exclude_if=lambda content: content is PublishContent.MODEL
    )
    """What is copied: the exported model, or the data set of the run."""

    hub: HubTarget | None = Field(default=None, exclude_if=lambda target: target is None)
    """The Hugging Face Hub, or the site's mirror of it."""

    oci: OciTarget | None = Field(default=None, exclude_if=lambda target: target is None)
    """An OCI registry, as an artifact in the layout of ModelPack."""

    s3: S3Target | None = Field(default=None, exclude_if=lambda target: target is None)
    """A bucket of an S3-compatible server."""

    @property
    def place(self) -> S3Target | OciTarget | HubTarget | None:
        """The field that is set."""
        return self.s3 or self.oci or self.hub

    @property
    def kind(self) -> str:
        """Name of the field that is set, as the run file has it."""
        set_one = {"s3": self.s3, "oci": self.oci, "hub": self.hub}
        return next((kind for kind, place in set_one.items() if place is not None), "")


PublishTargets = Annotated[tuple[PublishTarget, ...], Field(max_length=MAX_TARGETS)]
"""The places to which a run publishes."""

PUBLISH_KEY_VARIABLES: Final = r"DYNALIGN_PUBLISH_[0-9]+_(USERNAME|PASSWORD|TOKEN|DOCKER_CONFIG)"
"""Environment variables that hold keys of the places to publish to, as a regular expression."""


def publish_credentials(index: int) -> CredentialVariables:
    """Variables with the credentials of the target at `index` of `spec.export.publish`."""
    at = f"DYNALIGN_PUBLISH_{index}"
    return CredentialVariables(f"{at}_USERNAME", f"{at}_PASSWORD", f"{at}_DOCKER_CONFIG")


def publish_token(index: int) -> str:
    """Variable with the hub's token of the target at `index` of `spec.export.publish`."""
    return f"DYNALIGN_PUBLISH_{index}_TOKEN"
