"""Keys of a registry in a Docker configuration, as `kubectl create secret docker-registry` and `docker login` write it."""

import base64
import json

import pytest

from dynalign_contract.docker_config import DockerConfigError, find_credentials
from dynalign_contract.stores import Credentials

HOST = "registry.example.com:5000"
AUTH = base64.b64encode(b"pusher:pass:word").decode()


def config(**auths: object) -> str:
    return json.dumps({"auths": auths, "credHelpers": {}})


@pytest.mark.parametrize(
    "name",
    [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"http://{HOST}/v2", f"{HOST}/", "*.example.com:5000"],
)
def test_an_entry_names_the_registry_in_several_ways(name: str) -> None:
    assert find_credentials(config(**{name: {"auth": AUTH}}), HOST) == Credentials("pusher", "pass:word")


def test_user_name_and_password_may_stand_apart() -> None:
    assert find_credentials(config(**{HOST: {"username": "a", "password": "b"}}), HOST) == Credentials("a", "b")


def test_the_entry_with_the_very_name_counts_before_a_pattern() -> None:
    auths = {"*.example.com:5000": {"username": "x", "password": "y"}, HOST: {"auth": AUTH}}
    assert find_credentials(config(**auths), HOST).username == "pusher"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not json", "is not one"),
        ("[]", "is not one"),
        (config(**{HOST: "secret-text"}), "is not one"),
        (config(), "has no entry for registry.example.com:5000, only for: none"),
        (config(**{"other.example.com": {"auth": AUTH}}), "only for: other.example.com"),
        (config(**{"*.com:5000": {"auth": AUTH}}), "has no entry"),
        (config(**{"registry.example.com": {"auth": AUTH}}), "has no entry"),
        (config(**{HOST: {"auth": "secret-text"}}), "no user name and password in base64"),
        (config(**{HOST: {"auth": base64.b64encode(b"secret-text").decode()}}), "no user name and password in base64"),
        (config(**{HOST: {"username": "a"}}), "has no user name and password"),
        (config(**{HOST: {"identitytoken": "secret-text"}}), "but an identity token"),
    ],
)
def test_what_cannot_be_used_is_said_without_a_secret(text: str, says: str) -> None:
    with pytest.raises(DockerConfigError) as caught:
        find_credentials(text, HOST)
    assert says in str(caught.value)
    assert "secret-text" not in str(caught.value)
    assert AUTH not in str(caught.value)
