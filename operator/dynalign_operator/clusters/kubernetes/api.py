"""The API server, in plain JSON objects: kubernetes.aio gives credentials, TLS and connections."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from kubernetes.aio import client, config
from yarl import URL

from dynalign_operator.clusters.errors import ClusterError, ConflictError, GoneError
from dynalign_operator.clusters.kubernetes.bounded_read import PLAIN, read_bounded, read_lines
from dynalign_operator.clusters.kubernetes.paths import ApiPath
from dynalign_operator.manifests.objects import KubernetesObject

_TIMEOUT_SECONDS: Final = 30.0
_AUTH: Final = ["BearerToken"]
_JSON: Final = "application/json"
_METADATA_ONLY: Final = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{_JSON}"
"""A list of PartialObjectMetadata, from a server that knows it."""

Record = Callable[[str, int, float], None]
"""Told of every request: HTTP method, HTTP status (0: no answer), seconds."""


class RefusedError(ClusterError):
    """The API server refused a request; `status` is the HTTP status, 0 when there was no answer."""

    def __init__(self, what: str, status: int, message: str) -> None:
        super().__init__(f"the API server refused to {what} ({status or 'no answer'}): {message}")
        self.status, self.message = status, message


def _record_nothing(_method: str, _status: int, _seconds: float) -> None:
    """Default `record` of a client whose requests are not measured."""


@asynccontextmanager
async def open_kube_api(record: Record = _record_nothing) -> AsyncIterator["KubeApi"]:
    """Connect with the pod's service account, or with KUBECONFIG where there is none."""
    settings = client.Configuration()
    if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
        config.load_incluster_config(client_configuration=settings)
    else:
        await config.load_kube_config(config_file=os.environ.get("KUBECONFIG"), client_configuration=settings)
    async with connect(settings, record) as api:
        yield api


@asynccontextmanager
async def connect(settings: client.Configuration, record: Record = _record_nothing) -> AsyncIterator["KubeApi"]:
    """Connect with credentials that have been read."""
    settings.client_session_kwargs = {"auto_decompress": False, "read_bufsize": 2**16, "middlewares": (_take_plain,)}
    async with client.ApiClient(settings) as api:
        for name, value in PLAIN.items():
            api.set_default_header(name, value)
        yield KubeApi(api, record)


async def _take_plain(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Refuse redirects and compressed answers: a pod behind the API server may mislead or flood with them."""
    answer = await handler(request)
    if 300 <= answer.status < 400 or answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        answer.close()
        raise aiohttp.ClientPayloadError("the answer is a redirect, or compressed, and is not read")
    return answer


class KubeApi:
    """Requests on paths that `paths` has built, sent as they are. Every method raises RefusedError."""

    def __init__(self, api: Any, record: Record = _record_nothing) -> None:
        self._api, self._record = api, record

    async def get(self, path: ApiPath, *, metadata_only: bool = False) -> KubernetesObject | None:
        """Read an object or a list, or the metadata of what it holds; None when it is not there."""
        accept = _METADATA_ONLY if metadata_only else _JSON
        try:
            return await self._request("GET", path, f"read {path}", accept=accept)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, path: ApiPath, body: KubernetesObject) -> KubernetesObject | None:
        """Create an object and return it as stored; None when one of that name is there already."""
        name = body["metadata"].get("name") or body["metadata"].get("generateName", "")
        try:
            return await self._request("POST", path, f"create {body['kind']} {name}", body)
        except RefusedError as error:
            if error.status == 409:
                return None
            raise

    async def set_owner(self, path: ApiPath, owner: Mapping[str, Any]) -> None:
        """Make this the only owner of an object; one that is gone is no error."""
        patch = {"metadata": {"ownerReferences": [dict(owner)]}}
        try:
            await self._request("PATCH", path, f"give {path} its owner", patch, "application/merge-patch+json")
        except RefusedError as error:
            if error.status != 404:
                raise

    async def merge(self, path: ApiPath, changes: Mapping[str, Any]) -> KubernetesObject | None:
        """Change fields of an object by a merge patch and return it as stored; None when it is not there."""
        what = f"change {path}"
        try:
            return await self._request("PATCH", path, what, dict(changes), "application/merge-patch+json")
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, path: ApiPath, *, propagation: str) -> None:
        """Delete an object; one that is gone is no error."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        try:
            await self._request("DELETE", path, f"delete {path}", options)
        except RefusedError as error:
            if error.status != 404:
                raise

    async def replace_status(self, path: ApiPath, version: str, status: Mapping[str, Any]) -> KubernetesObject:
        """Replace the status of the version that was read; the path leads to the subresource `status`.

        Raises ConflictError when that version is no longer the latest, GoneError when the object is no more.
        """
        return await self._patch_status(path, version, "/status", dict(status))

    async def replace_conditions(self, path: ApiPath, version: str, conditions: Sequence[Any]) -> KubernetesObject:
        """Replace `status.conditions` alone. Raises as `replace_status` does."""
        return await self._patch_status(path, version, "/status/conditions", list(conditions))

    async def _patch_status(self, path: ApiPath, version: str, field: str, value: Any) -> KubernetesObject:
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": field, "value": value},
        ]
        try:
            return await self._request("PATCH", path, f"write {path}", patch, "application/json-patch+json")
        except RefusedError as error:
            if error.status == 404:
                raise GoneError(str(error)) from error
            if error.status == 409:
                raise ConflictError(str(error)) from error
            raise

    async def read_raw(self, path: ApiPath, most_bytes: int, *, seconds: float) -> bytes:
        """Read what somebody else answers through the API server: so many bytes at most, in so many seconds."""
        request = await self._api.param_serialize("GET", path, auth_settings=_AUTH)
        method, url, *rest = request
        started, status = time.monotonic(), 0
        try:
            async with asyncio.timeout(seconds):
                answer = await self._api.call_api(method, URL(url, encoded=True), *rest, _request_timeout=seconds)
                status = answer.status
                try:
                    return await read_bounded(answer.response, most_bytes)
                finally:
                    answer.response.close()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RefusedError(f"read {path}", 0, f"{type(error).__name__}: {error}") from error
        finally:
            self._record(method, status, time.monotonic() - started)

    async def read_lines(self, path: ApiPath) -> AsyncIterator[str]:
        """Read a text line by line for as long as the server sends it; a line that is too long comes in pieces."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT_SECONDS)
        method, url, *rest = await self._api.param_serialize("GET", path, auth_settings=_AUTH)
        try:
            answer = await self._api.call_api(method, URL(url, encoded=True), *rest, _request_timeout=timeout)
            try:
                if answer.status >= 300:
                    raise RefusedError(f"read {path}", answer.status, _message(await answer.read()))
                async for line in read_lines(answer.response.content):
                    yield line
            finally:
                answer.response.close()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RefusedError(f"read {path}", 0, f"{type(error).__name__}: {error}") from error

    async def _request(
        self, method: str, path: ApiPath, what: str, body: Any = None, content_type: str = _JSON, *, accept: str = _JSON
    ) -> KubernetesObject:
        data = await self._send(method, path, what, body, content_type, accept=accept)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RefusedError(what, 200, f"the answer is no JSON: {_beginning(data)}") from error
        if not isinstance(answer, dict):
            raise RefusedError(what, 200, f"the answer is no JSON object: {_beginning(data)}")
        return answer

    async def _send(self, method: str, path: ApiPath, what: str, body: Any, content_type: str, *, accept: str) -> bytes:
        headers = {"Accept": accept, **({"Content-Type": content_type} if body is not None else {})}
        request = await self._api.param_serialize(method, path, header_params=headers, body=body, auth_settings=_AUTH)
        method, url, *rest = request
        started, status = time.monotonic(), 0
        try:
            # a URL that is not marked as encoded would be normalised: `%2e%2e` becomes `..`, and that another path
            answer = await self._api.call_api(method, URL(url, encoded=True), *rest, _request_timeout=_TIMEOUT_SECONDS)
            data: bytes = await answer.read()
            status = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RefusedError(what, 0, f"{type(error).__name__}: {error}") from error
        finally:
            self._record(method, status, time.monotonic() - started)
        if answer.status >= 300:
            raise RefusedError(what, answer.status, _message(data))
        return data


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return _beginning(data)


def _beginning(data: bytes) -> str:
    return data[:500].decode(errors="replace")
