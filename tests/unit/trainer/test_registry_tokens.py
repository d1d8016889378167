"""How a registry is told who asks: tokens for keys, and to whom the keys are not sent."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from dynalign_contract.errors import BadConfigError
from dynalign_contract.stores import Credentials
from dynalign_trainer.stores.place import StorePlace, StoreUnreachableError
from dynalign_trainer.stores.registry import Repository, digest_of
from support.loopback import serve

KEYS = Credentials("pusher", "its-password")
BLOB = bytes(range(256)) * 8


class Registry(BaseHTTPRequestHandler):
    """Hands out a token for the right keys, and a blob for the token; ranges it does not know."""

    protocol_version = "HTTP/1.1"
    realm = ""
    busy = False
    scopes: list[str]
    keys: list[str]
    """What came as proof to the server of tokens."""

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        proof = self.headers.get("Authorization", "")
        if self.busy:
            self._answer(503, b"busy")
        elif path.path == "/token":
            self.keys.append(proof)
            self.scopes += parse_qs(path.query)["scope"]
            right = "Basic " + base64.b64encode(f"{KEYS.username}:{KEYS.password}".encode()).decode()
            self._answer(200 if proof == right else 401, json.dumps({"token": "a-token"}).encode())
        elif proof != "Bearer a-token":
            self._answer(401, b"", f'Bearer realm="{self.realm}",service="tests"')
        else:
            self._answer(200, BLOB)

    def _answer(self, status: int, body: bytes, challenge: str = "") -> None:
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Registry], str]]:
    class Handler(Registry):
        scopes: list[str] = []  # noqa: RUF012 - of this server alone
        keys: list[str] = []  # noqa: RUF012

    with serve(Handler) as url:
        Handler.realm = f"{url}/token"
        yield Handler, url


def repository(url: str, keys: Credentials | None = KEYS) -> Repository:
    place = StorePlace("spec.model.uri", "oci://r/models", url, "spec.model.credentialsSecretRef", ("A", "B"))
    return Repository(place, "models/mine", keys, rights="pull")


@pytest.mark.parametrize("start", [0, 1, 1000, len(BLOB) - 1])
def test_a_blob_is_read_with_a_token_from_wherever_a_download_was_cut_off(
    start: int, server: tuple[type[Registry], str]
) -> None:
    handler, url = server
    assert b"".join(repository(url).read_blob(digest_of(BLOB), start)) == BLOB[start:]
    assert handler.scopes == ["repository:models/mine:pull"]


def test_wrong_keys_are_refused(server: tuple[type[Registry], str]) -> None:
    with pytest.raises(BadConfigError, match=r"is refused .* Secret of spec\.model\.credentialsSecretRef \(A and B"):
        repository(server[1], Credentials("pusher", "wrong")).find_manifest("v1")


@pytest.mark.parametrize("realm", ["http://elsewhere.example.com/token", "https://169.254.169.254/token", ""])
def test_keys_are_not_sent_to_a_place_that_is_not_safe(realm: str, server: tuple[type[Registry], str]) -> None:
    handler, url = server
    handler.realm = realm
    with pytest.raises(BadConfigError, match="which is not safe"):
        repository(url).find_manifest("v1")
    assert handler.keys == []


def test_a_registry_that_fails_is_asked_again_later(server: tuple[type[Registry], str]) -> None:
    handler, url = server
    handler.busy = True
    with pytest.raises(StoreUnreachableError, match="503"):
        repository(url).find_manifest("v1")
