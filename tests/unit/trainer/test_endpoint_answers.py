"""What an endpoint may answer: its size, its compression, and a key that it echoes."""

import base64
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dynalign_contract.errors import BadConfigError
from dynalign_contract.references import SecretKeyRef
from dynalign_trainer.endpoints.completions import ChatRequest
from dynalign_trainer.endpoints.redaction import quote_text, remove_key
from dynalign_trainer.endpoints.transport import LONGEST_ANSWER
from support.chat_server import Answer, completion, refusal, serve_chat
from support.endpoints import SECRET, impatient_endpoint, refused

KEY = SecretKeyRef(name="keys", key="author")


def packed(data: bytes, encoding: str) -> Answer:
    encoders: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    return Answer(encoders[encoding](data), headers={"Content-Encoding": encoding})


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_is_read_though_none_was_asked_for(encoding: str) -> None:
    body = json.dumps(completion("How?").body).encode()
    with serve_chat(lambda _: packed(body, encoding)) as server:
        (reply,) = impatient_endpoint(server.url).complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)])
    assert reply is not None
    assert reply.text == "How?"


LONG = b'{"choices": "' + b"x" * (LONGEST_ANSWER + 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Answer(LONG),
        lambda: packed(LONG, "gzip"),
        lambda: packed(b"0" * 2**28, "deflate"),
        lambda: Answer(LONG, 500),
        lambda: Answer(LONG, 404),
    ],
    ids=["plain", "gzip", "bomb", "500", "404"],
)
def test_an_answer_that_does_not_end_is_not_read_to_its_end(make: Callable[[], Answer]) -> None:
    answer = make()
    with serve_chat(lambda _: answer) as server:
        error = refused(server.url)
    assert isinstance(error, BadConfigError)
    assert "answers with more than 4 MiB, which no chat completion needs" in str(error)


def test_alternatives_are_given_up_before_an_answer_is_too_long() -> None:
    def answer(body: dict[str, Any]) -> Answer:
        return Answer(LONG) if "top_logprobs" in body else completion("7")

    request = ChatRequest("Good?", 0.0, 1.0, 8, seed=1, choices=tuple("0123456789"), logprobs=True)
    with serve_chat(answer) as server:
        (reply,) = impatient_endpoint(server.url).complete([request])
    assert reply is not None
    assert reply.text == "7"
    assert [body.get("top_logprobs") for body in server.asked] == [20, 5, None]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(b"\x00\x01", headers={"Content-Encoding": "br"}), "encoded as 'br', which was not asked for"),
        (Answer(b"no gzip", headers={"Content-Encoding": "gzip"}), "cannot be decompressed"),
    ],
)
def test_an_answer_that_cannot_be_decompressed_is_told(answer: Answer, words: str) -> None:
    with serve_chat(lambda _: answer) as server:
        assert words in str(refused(server.url))


# What a server says


def echoes(key: str) -> list[str]:
    in_base64 = base64.b64encode(key.encode()).decode()
    return [
        f"unauthorized: Bearer {key}",
        key,
        f"key={httpx.QueryParams({'k': key})}",
        json.dumps({"sent": key}),
        f"Basic {base64.b64encode(f'user:{key}'.encode()).decode()}",
        in_base64,
        base64.b64encode(f"Bearer {key}".encode()).decode(),
        base64.urlsafe_b64encode(f"x{key}".encode()).decode(),
        f"Incorrect API key provided: {key[:8]}*******{key[-6:]}",
        " ".join([key[:12], key[12:]]),
        key.encode().hex(),
    ]


@pytest.mark.parametrize("said", echoes(SECRET))
def test_nothing_of_a_key_is_quoted(said: str) -> None:
    with serve_chat(lambda _: refusal(401, said)) as server:
        told = str(refused(server.url, api_key_secret_ref=KEY))
    assert "refuses the key with status 401" in told
    pieces = [form[i : i + 6] for form in (SECRET, SECRET.encode().hex()) for i in range(len(form) - 5)]
    assert not any(piece in told for piece in pieces)
    for before in ("", "Bearer ", "user:", "x"):
        encoded = base64.urlsafe_b64encode(f"{before}{SECRET}".encode()).decode()
        assert encoded[10:-6] not in told.replace("+", "-").replace("/", "_")


def test_an_answer_that_echoes_the_key_does_not_bring_it_into_the_run() -> None:
    with serve_chat(lambda _: completion(f"You sent Bearer {SECRET}")) as server:
        (reply,) = impatient_endpoint(server.url, api_key_secret_ref=KEY).complete(
            [ChatRequest("Write.", 1.0, 1.0, 8, seed=1)]
        )
    assert reply is not None
    assert SECRET not in reply.text


def test_a_list_of_models_that_echoes_the_key_does_not_bring_it_into_a_message() -> None:
    with serve_chat(lambda _: refusal(404, "no"), models=(f"m-{SECRET}", "\x1b[31mred")) as server:
        told = str(refused(server.url, api_key_secret_ref=KEY))
    assert "m-[key]" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_a_quote_is_short_and_on_one_line(status: int) -> None:
    said = "\x1b]52;c;aGk=\x07\u202eevil\nline\x00" + "long " * 100
    with serve_chat(lambda _: Answer(said.encode(), status)) as server:
        told = str(refused(server.url))
    assert not any(character in told for character in "\x1b\x07\u202e\n\x00")
    assert "evil line long" in told
    assert len(told) < 600
    assert len(quote_text(said, None)) == 200


def test_a_short_key_is_removed_as_a_whole_only() -> None:
    assert quote_text("abc abd", "abc") == "[key] abd"
    assert remove_key(b'{"a": "abc"}', "abc") == b'{"a": "[key]"}'
    assert remove_key(b"as it is", None) == b"as it is"


# Proxies
