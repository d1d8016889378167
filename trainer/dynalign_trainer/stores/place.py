"""Which part of a run names a store, with which keys, and the errors that a store's answers become."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from dynalign_contract.docker_config import DockerConfigError, find_credentials
from dynalign_contract.errors import BadConfigError, StageError
from dynalign_contract.stores import Credentials


class StoreUnreachableError(StageError):
    """A store did not answer, answered with its own failure, or broke off; retriable."""

    reason = "StoreUnreachable"


class PublishMismatchError(StageError):
    """What was read back is not what was published; retriable, because pushing it again may succeed."""

    reason = "PublishMismatch"


@dataclass(frozen=True)
class StorePlace:
    """A place in a store, as messages name it."""

    field: str
    """Field of the run file, such as `spec.export.publish[0].s3`."""
    uri: str
    server: str
    """URL of the server."""
    reference: str
    """Field that names the Secret with the keys."""
    variables: tuple[str, ...]
    """Environment variables that hold the keys: user name and password, or a token."""
    docker_config: str = ""
    """Environment variable that holds a Docker configuration with user name and password in their place; empty for a
    store that is no registry."""

    @property
    def name(self) -> str:
        """Field, address and server, with which every message begins."""
        return f"{self.field}: {self.uri} at {self.server}"

    def refused(self, why: str) -> BadConfigError:
        """The server does not accept the keys, or has been given none."""
        return BadConfigError(
            f"{self.name} is refused ({why}). Check the keys in the Secret of {self.reference} "
            f"({' and '.join(self.variables)} for a local run), and what they may do there."
        )

    def missing(self, what: str, remedy: str) -> BadConfigError:
        """The server says that something does not exist."""
        return BadConfigError(f"{self.name}: {what}. {remedy}")

    def untrusted(self, why: str) -> BadConfigError:
        """The server's certificate is signed by none of the authorities that the stage trusts."""
        return BadConfigError(
            f"{self.name}: the server's certificate is not trusted ({why}). Name the site's certificate authorities in "
            "the chart's trainer.caBundle (SSL_CERT_FILE and REQUESTS_CA_BUNDLE for a local run), or correct the "
            "address."
        )

    def unreachable(self, why: str) -> StoreUnreachableError:
        """The server is away or fails."""
        return StoreUnreachableError(
            f"{self.name} does not answer as it should ({why}). The next attempt goes on where this one stopped; if "
            "that does not help, look at the server, and at the way to it (NetworkPolicy, proxy)."
        )

    def rejected(self, why: str) -> BadConfigError:
        """The server takes the request for a wrong one."""
        return BadConfigError(f"{self.name}: the server rejects the request ({why}). Correct the field that it names.")


def read_credentials(place: StorePlace, environment: Mapping[str, str]) -> Credentials | None:
    """The keys from the environment; None where there are none.

    Raises BadConfigError where one of two is missing, and where a Docker configuration has none for this server.
    """
    if text := environment.get(place.docker_config, "").strip():
        return read_docker_config(place, text)
    found = [environment.get(name, "").strip() for name in place.variables]
    if not any(found):
        return None
    if not all(found):
        raise BadConfigError(
            f"{place.reference}: the user name or the password is empty. Put both into the Secret "
            f"({' and '.join(place.variables)} for a local run)."
        )
    return Credentials(*found)


def read_docker_config(place: StorePlace, text: str) -> Credentials:
    """The keys for a place's registry. Raises BadConfigError where the configuration has none that can be used."""
    try:
        return find_credentials(text, urlsplit(place.server).netloc)
    except DockerConfigError as error:
        raise BadConfigError(
            f"{place.reference}: the Docker configuration {error} ({place.docker_config} for a local run)."
        ) from error


def read_token(place: StorePlace, environment: Mapping[str, str]) -> str:
    """The token from the environment. Raises BadConfigError where there is none."""
    token = environment.get(place.variables[0], "").strip()
    if not token:
        raise BadConfigError(
            f"{place.reference}: the token is empty. Put one into the Secret ({place.variables[0]} for a local run)."
        )
    return token
