"""A repository of an OCI registry: blobs and manifests by the distribution API, with its ways to prove who asks."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import httpx

from dynalign_contract.addresses import FORBIDDEN_URL, matches
from dynalign_contract.errors import StageError
from dynalign_contract.files import open_plain
from dynalign_contract.stores import Credentials
from dynalign_trainer.stores.place import StorePlace

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
LONGEST_MANIFEST: Final = 4 << 20
"""Bytes of a manifest that is read; registries take no longer ones."""
_BLOCK: Final = 1 << 20
_TIMEOUT: Final = httpx.Timeout(60, connect=10)
_PARAMETER: Final = re.compile(r'([a-z]+)="([^"]*)"')
_PASSING: Final = frozenset({408, 425, 429})

Body = Callable[[], Iterable[bytes]]
"""Makes the body of a request; called again when it has to be sent a second time."""


@dataclass
class Repository:
    """A repository of a registry. Every method raises StageError naming the place."""

    place: StorePlace
    name: str
    """Name within the registry."""
    keys: Credentials | None
    rights: str = "pull,push"
    """What a token is asked for."""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=_TIMEOUT))
    _authorization: str | None = None

    def has_blob(self, digest: str) -> bool:
        """Whether the repository holds a blob."""
        return self._send("HEAD", self._url(f"blobs/{digest}"), allowed=(200, 404)).status_code == 200

    def put_blob(self, digest: str, size: int, body: Body) -> None:
        """Upload a blob of `size` bytes."""
        begun = self._send("POST", self._url("blobs/uploads/"), allowed=(202,))
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        sent = self._send("PATCH", self._location(begun), body=body, headers=headers, allowed=(202,))
        self._send("PUT", self._location(sent), params={"digest": digest}, allowed=(201,))

    def put_bytes(self, data: bytes) -> None:
        """Upload a small blob unless it is there."""
        if not self.has_blob(digest := digest_of(data)):
            self.put_blob(digest, len(data), lambda: [data])

    def put_file(self, digest: str, path: Path, advance: Callable[[int], None]) -> None:
        """Upload a file as a blob; `advance` is told each block, and may raise to stop."""

        def body() -> Iterator[bytes]:
            with open_plain(path) as file:
                while block := file.read(_BLOCK):
                    yield block
                    advance(len(block))

        self.put_blob(digest, path.stat().st_size, body)

    def read_blob(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """The bytes of a blob from `start` on."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._explained(), self._stream(self._url(f"blobs/{digest}"), headers) as response:
            skipped = start if response.status_code == 200 else 0  # not every registry knows ranges
            for block in response.iter_bytes(_BLOCK):
                if skipped < len(block):
                    yield block[skipped:]
                skipped = max(0, skipped - len(block))

    def find_manifest(self, reference: str) -> bytes | None:
        """The manifest behind a tag or digest; None where there is none."""
        answer = self._send("GET", self._url(f"manifests/{reference}"), {"Accept": MANIFEST_TYPE}, allowed=(200, 404))
        return answer.content[: LONGEST_MANIFEST + 1] if answer.status_code == 200 else None

    def put_manifest(self, reference: str, manifest: bytes) -> None:
        """Store a manifest, whose blobs are there, under a tag or its digest."""
        headers = {"Content-Type": MANIFEST_TYPE}
        self._send("PUT", self._url(f"manifests/{reference}"), headers, body=lambda: [manifest], allowed=(201,))

    def _url(self, path: str) -> str:
        return f"{self.place.server}/v2/{self.name}/{path}"

    def _location(self, response: httpx.Response) -> str:
        """Where an upload goes on. The registry may name another host, which gets no keys of this one."""
        return str(urljoin(str(response.request.url), response.headers.get("Location", "")))

    def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        *,
        allowed: tuple[int, ...],
        body: Body | None = None,
        params: dict[str, str] | None = None,
    ) -> httpx.Response:
        with self._explained():
            for attempt in range(2):
                request = self.client.build_request(
                    method,
                    url,
                    params=httpx.URL(url).params.merge(params) if params else None,
                    headers={**(headers or {}), **self._proof(url)},
                    content=None if body is None else body(),
                )
                response = self.client.send(request, follow_redirects=method in ("GET", "HEAD"))
                if response.status_code != 401 or attempt or not self._authenticate(response):
                    break
            if response.status_code not in allowed:
                raise self._failure(response)
            return response

    @contextmanager
    def _stream(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        for attempt in range(2):
            request = self.client.build_request("GET", url, headers={**headers, **self._proof(url)})
            response = self.client.send(request, stream=True, follow_redirects=True)
            try:
                if response.status_code == 401 and not attempt and self._authenticate(response):
                    continue
                if response.status_code not in (200, 206):
                    response.read()
                    raise self._failure(response)
                yield response
                return
            finally:
                response.close()

    def _proof(self, url: str) -> dict[str, str]:
        """The header that proves who asks, for requests to the registry itself."""
        is_own = url.startswith(f"{self.place.server}/")
        return {"Authorization": self._authorization} if self._authorization and is_own else {}

    def _authenticate(self, response: httpx.Response) -> bool:
        """Do what the registry asks for; False where that has been done, or there are no keys."""
        challenge = response.headers.get("WWW-Authenticate", "")
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self.keys is not None:
            pair = f"{self.keys.username}:{self.keys.password}".encode()
            authorization = f"Basic {base64.b64encode(pair).decode()}"
        elif scheme.lower() == "bearer":
            authorization = f"Bearer {self._token(dict(_PARAMETER.findall(rest)))}"
        else:
            return False
        is_new, self._authorization = authorization != self._authorization, authorization
        return is_new

    def _token(self, challenge: dict[str, str]) -> str:
        realm = challenge.get("realm", "")
        is_safe = realm.startswith(("https://", f"{self.place.server}/"))
        if not is_safe or matches(FORBIDDEN_URL, realm):
            raise self.place.rejected(f"it asks to send the keys to {realm[:200]!r}, which is not safe")
        params = {"scope": f"repository:{self.name}:{self.rights}"}
        params |= {"service": challenge["service"]} if "service" in challenge else {}
        auth = None if self.keys is None else (self.keys.username, self.keys.password)
        response = self.client.get(realm, params=params, auth=auth or httpx.USE_CLIENT_DEFAULT)
        if response.status_code != 200:
            raise self._failure(response)
        found: Any = response.json()
        return str(found.get("token") or found.get("access_token") or "")

    def _failure(self, response: httpx.Response) -> StageError:
        """What an answer means for the run."""
        status = response.status_code
        said = " ".join(f"{status} {response.reason_phrase}: {response.text}".split())[:300]
        if status in (401, 403):
            return self.place.refused(said)
        if status == 404:
            return self.place.missing(f"there is no such repository or content ({said})", "Correct the address")
        return (
            self.place.rejected(said)
            if 400 <= status < 500 and status not in _PASSING
            else (self.place.unreachable(said))
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, ValueError) as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            if "CERTIFICATE_VERIFY_FAILED" in said:
                raise self.place.untrusted(said) from error
            raise self.place.unreachable(said) from error


def digest_of(data: bytes) -> str:
    """Digest of a blob or manifest, as registries write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
