"""Keys of registries in a Docker configuration. Pure.

`kubectl create secret docker-registry` and `docker login` write such a configuration.
"""

import base64
import binascii
from fnmatch import fnmatch
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dynalign_contract.stores import Credentials

_API_PATHS = ("/v1", "/v2")


class DockerConfigError(ValueError):
    """A configuration that has no keys for a registry; the message says what is wrong, as what follows its name."""


class _Entry(BaseModel):
    """Keys of one registry. `auth` is `username:password` in base64, and counts before the two."""

    model_config = ConfigDict(extra="ignore")

    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _DockerConfig(BaseModel):
    model_config = ConfigDict(extra="ignore")

    auths: dict[str, _Entry] = Field(default_factory=dict)


def find_credentials(text: str, registry: str) -> Credentials:
    """User name and password for a registry, given by host and port, as Kubernetes finds them for an image.

    An entry names the registry with or without a scheme and a path of the API; `*` stands for a part of the host's
    name. Raises DockerConfigError, which holds no part of the configuration but names of registries.
    """
    config = _parse(text)
    hosts = {_host(name): entry for name, entry in config.auths.items()}
    entry = hosts.get(registry) or next((found for host, found in hosts.items() if _matches(host, registry)), None)
    if entry is None:
        known = ", ".join(sorted(hosts)) or "none"
        raise DockerConfigError(f"has no entry for {registry}, only for: {known}. Add one, or name another Secret")
    return _read_entry(entry, registry)


def _parse(text: str) -> _DockerConfig:
    try:
        return _DockerConfig.model_validate_json(text)
    except ValidationError as error:
        first: Any = error.errors(include_input=False, include_url=False)[0]
        at = ".".join(map(str, first["loc"])) or "the whole"
        raise DockerConfigError(
            f"is not one ({at}: {first['type']}). Make the Secret with `kubectl create secret docker-registry`"
        ) from None


def _read_entry(entry: _Entry, registry: str) -> Credentials:
    username, password = entry.username, entry.password
    if entry.auth:
        try:
            username, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise DockerConfigError(
                f"has an `auth` for {registry} that is no user name and password in base64. Make the Secret anew"
            )
    if not username or not password:
        token = " but an identity token, which dynalign does not use" if entry.identitytoken else ""
        raise DockerConfigError(f"has no user name and password for {registry}{token}. Put both into the Secret")
    return Credentials(username, password)


def _host(name: str) -> str:
    """Host and port of an entry's name, such as `https://registry.example.com/v2/`."""
    bare = name.partition("://")[2] or name
    bare = bare.rstrip("/")
    for path in _API_PATHS:
        bare = bare.removesuffix(path)
    return bare


def _matches(pattern: str, registry: str) -> bool:
    """Whether a pattern such as `*.example.com` means this registry; a `*` does not reach over dots."""
    wanted, parts = pattern.split("."), registry.split(".")
    return "*" in pattern and len(wanted) == len(parts) and all(map(fnmatch, parts, wanted))
