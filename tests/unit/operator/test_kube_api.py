"""Answers of a server that is no well API server: each is a refusal, none ends a worker or a comparison."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dynalign_operator.clusters.errors import ConflictError, GoneError
from dynalign_operator.clusters.kubernetes.api import KubeApi, RefusedError

PATH: Any = "/api/v1/namespaces/team/configmaps/x"


def api_that_answers(status: int, data: bytes) -> KubeApi:
    """A client whose every request ends like this."""

    async def read() -> bytes:
        return data

    async def serialize(method: str, path: str, **_: Any) -> tuple[str, str]:
        return method, f"http://server{path}"

    async def call(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(status=status, read=read)

    return KubeApi(SimpleNamespace(param_serialize=serialize, call_api=call))


@pytest.mark.parametrize(
    "data", [b"<html>sign in</html>", b"", b"[1]", b'"text"', b"\xff\xfe", b"[" * 100_000], ids=lambda d: str(d[:9])
)
def test_an_answer_that_is_no_json_object_is_a_refusal(data: bytes) -> None:
    with pytest.raises(RefusedError, match="the answer is no JSON"):
        asyncio.run(api_that_answers(200, data).get(PATH))


@pytest.mark.parametrize("data", [b"<html>bad gateway</html>", b'{"message": "bad gateway"}'])
def test_a_refusal_quotes_what_the_server_said(data: bytes) -> None:
    with pytest.raises(RefusedError, match="bad gateway") as caught:
        asyncio.run(api_that_answers(502, data).get(PATH))
    assert caught.value.status == 502


@pytest.mark.parametrize(("status", "error"), [(404, GoneError), (409, ConflictError), (500, RefusedError)])
def test_a_status_that_cannot_be_written(status: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        asyncio.run(api_that_answers(status, b'{"message": "no"}').replace_status(PATH, "1", {}))
