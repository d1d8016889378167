"""Where a stage's requests may go: what a URL gives away, what its name leads to, and what an answer may hold."""

import base64
import gzip
import json
import os
import socket
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from dynalign_contract.addresses import FORBIDDEN_URL, describe_forbidden, matches
from dynalign_contract.agents import Role, agent_endpoint
from dynalign_contract.endpoints import EndpointSettings, keeps_key
from dynalign_contract.errors import BadConfigError, StageError
from dynalign_contract.host import WORKDIR_VARIABLE
from dynalign_contract.references import SecretKeyRef
from dynalign_trainer.endpoints.backoff import Backoff
from dynalign_trainer.endpoints.client import Endpoint, open_endpoint
from dynalign_trainer.endpoints.completions import ChatRequest
from dynalign_trainer.endpoints.journal import Journal
from dynalign_trainer.endpoints.redaction import quote_text, remove_key
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.endpoints.transport import LONGEST_ANSWER, find_proxy
from support.chat_server import Answer, completion, refusal, serve_chat

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
SECRET = "sk-Very/secret+key=12345"  # noqa: S105 - made up
KEY = SecretKeyRef(name="keys", key="author")


def endpoint(url: str, environment: dict[str, str] | None = None, **settings: Any) -> Endpoint:
    wanted = EndpointSettings(url=url, model="m", **{"retries": 0, **settings})
    found = {"DYNALIGN_AUTHOR_API_KEY": SECRET} | (environment or {})
    opened = open_endpoint(agent_endpoint(Role.AUTHOR), wanted, found, Journal(Path(os.devnull)))
    opened.backoff = Backoff(first=0.002, most=0.01)
    return opened


def refused(url: str, environment: dict[str, str] | None = None, **settings: Any) -> StageError:
    with pytest.raises(StageError) as caught:
        endpoint(url, environment, **settings).complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)])
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        "http://2852039166/v1",
        "http://0xa9fea9fe/v1",
        "http://0251.0376.0251.0376/v1",
        "http://169.254.43518/v1",
        "http://0xa9.254.169.0xfe/v1",
        "http://169.254.169.0xfe/v1",
        "http://169.254.169.254@vllm/v1",
        "http://vllm@169.254.169.254/v1",
        "http://vllm\\@169.254.169.254/v1",
        "http://vllm#@169.254.169.254/v1",
        "http://\uff11\uff16\uff19.254.169.254/v1",
        "http://169\u3002254\u3002169\u3002254/v1",
        "http://[fe80::1%25eth0]/v1",
        "http://127.1/v1",
        "http:///v1",
        "http://vllm:port/v1",
        "ftp://vllm/v1",
    ],
)
def test_a_url_says_plainly_where_it_leads(url: str) -> None:
    with pytest.raises(ValidationError):
        EndpointSettings(url=url, model="m")


@pytest.mark.parametrize(
    "url",
    [
        "http://vllm:8000/v1",
        "https://api.example.com/v1",
        "http://10.0.0.7:8000/v1",
        "http://judge.7b-models.svc:8000/v1",
        "http://judge.10x.svc.cluster.local./v1",
        "https://[2001:db8::7]:8443/v1",
        "http://127.0.0.1:8000/v1",
        "http://localhost/v1",
        "https://xn--bcher-kva.example/v1",
    ],
)
def test_the_usual_forms_are_taken(url: str) -> None:
    assert EndpointSettings(url=url, model="m").url == url
    assert not matches(FORBIDDEN_URL, url)


FORBIDDEN = [
    "http://169.254.169.254/latest",
    "https://169.254.170.23/v1",
    "http://0.0.0.0:8000/v1",
    "http://100.100.100.200/v1",
    "http://METADATA.google.internal/v1",
    "http://metadata.google.internal./v1",
    "http://[fe80::1]/v1",
    "http://[FEBF::1]/v1",
    "http://[fd00:ec2::254]/v1",
    "http://[fd00:0ec2:0:0:0:0:0:254]/v1",
    "http://[::ffff:169.254.169.254]/v1",
    "http://[::ffff:a9fe:a9fe]/v1",
    "http://[0:0:0:0:0:ffff:a9fe:a9fe]/v1",
    "http://[64:ff9b::a9fe:a9fe]/v1",
    "http://[2002:a9fe:a9fe::1]/v1",
    "http://[::]/v1",
    "http://224.0.0.1/v1",
]


@pytest.mark.parametrize("url", FORBIDDEN)
def test_link_local_and_metadata_addresses_are_refused_before_any_work(url: str) -> None:
    assert EndpointSettings(url=url, model="m"), "the form is right; the rule is about where it leads"
    assert matches(FORBIDDEN_URL, url)
    error = refused(url)
    assert isinstance(error, BadConfigError)
    assert "are never asked. Write the address of a server of models in prompts.agents.author.endpoint.url" in str(
        error
    )


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("169.254.169.254", "metadata"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::ffff:6464:64c8", "metadata"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("2002:a9fe:a9fe::", "metadata"),
        ("::169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("169.254.1.1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("0.0.0.0", "no address"),  # noqa: S104
        ("0.1.2.3", "no address"),
        ("::", "no address"),
        ("127.0.0.53", "the pod's own"),
        ("::1", "the pod's own"),
        ("::ffff:127.0.0.1", "the pod's own"),
        ("224.0.0.1", "many"),
        ("ff02::1", "many"),
    ],
)
def test_what_a_name_leads_to_is_judged_by_the_address(address: str, what: str) -> None:
    assert what in str(describe_forbidden(address, loopback=False))


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "8.8.8.8", "2001:db8::1", "fd12:3456::1"])
def test_other_addresses_are_taken(address: str) -> None:
    assert describe_forbidden(address, loopback=False) is None
    assert describe_forbidden("127.0.0.1", loopback=True) is None


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Names -> what a DNS server answers, one list of addresses for each time that it is asked."""
    answers: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in answers:
            return real(host, port, *rest, **named)
        if not answers[name]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = answers[name].pop(0)
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


def port_of(url: str) -> str:
    return url.split(":")[2]


def test_a_name_that_leads_to_a_metadata_service_is_never_connected_to(resolve: dict[str, list[list[str]]]) -> None:
    resolve["models.example.com"] = [["169.254.169.254"]]
    error = refused("https://models.example.com/v1", api_key_secret_ref=KEY)
    assert isinstance(error, BadConfigError)
    assert "models.example.com/v1 leads to 169.254.169.254, the address of a cloud's metadata service" in str(error)


def test_the_address_that_is_connected_to_is_the_one_that_was_looked_at(resolve: dict[str, list[list[str]]]) -> None:
    """A DNS server that answers differently the second time is not asked a second time."""
    with serve_chat(lambda body: completion("x")) as server:
        resolve["models.example.com"] = [["127.0.0.1"], ["169.254.169.254"]]
        found = endpoint(f"http://models.example.com:{port_of(server.url)}")
        (reply,) = found.complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)])
    assert reply is not None
    assert resolve["models.example.com"] == [["169.254.169.254"]]


def test_of_several_addresses_the_next_is_tried_and_forbidden_ones_are_not(resolve: dict[str, list[list[str]]]) -> None:
    with serve_chat(lambda body: completion("x")) as server:
        resolve["models.example.com"] = [["169.254.169.254", "127.0.0.9", "127.0.0.1"]]
        found = endpoint(f"http://models.example.com:{port_of(server.url)}")
        assert found.complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)]) != [None]


def test_the_server_is_told_the_name_that_the_run_file_gives(resolve: dict[str, list[list[str]]]) -> None:
    with serve_chat(lambda body: completion("x")) as server:
        resolve["models.example.com"] = [["127.0.0.1"]]
        url = f"http://models.example.com:{port_of(server.url)}"
        endpoint(url).complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)])
    assert server.hosts == [url.split("/")[2]]


def test_a_name_that_nobody_knows_may_be_known_later(resolve: dict[str, list[list[str]]]) -> None:
    resolve["models.example.com"] = []
    error = refused("http://models.example.com/v1")
    assert isinstance(error, EndpointError)
    assert "cannot be reached (the name models.example.com cannot be resolved" in str(error)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_a_laptops_and_no_pods(host: str) -> None:
    with serve_chat(lambda body: completion("x")) as server:
        url = server.url.replace("127.0.0.1", host)
        laptop = endpoint(url, POD | {WORKDIR_VARIABLE: "/home/me/runs/r"})
        assert laptop.complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)]) != [None]
        assert "the pod's own address" in str(refused(url, POD))


def test_a_name_that_leads_to_loopback_is_refused_in_a_pod(resolve: dict[str, list[list[str]]]) -> None:
    resolve["models.example.com"] = [["127.0.0.1"]]
    assert "leads to 127.0.0.1, the pod's own address" in str(refused("http://models.example.com/v1", POD))


@pytest.mark.parametrize(
    ("url", "keeps"),
    [
        ("https://api.example.com/v1", True),
        ("http://vllm:8000/v1", True),
        ("http://vllm.models.svc:8000/v1", True),
        ("http://vllm.models.svc.cluster.local:8000/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://api.example.com/v1", False),
        ("http://vllm.models:8000/v1", False),
        ("http://evil.svc.example.com/v1", False),
        ("http://a.b.svc.cluster.local.example.com/v1", False),
        ("http://svc/../v1", True),
        ("http://10.0.0.7:8000/v1", False),
        ("http://localhost.example.com/v1", False),
        ("HTTP://api.example.com/v1", False),
    ],
)
def test_a_key_travels_encrypted_or_within_the_cluster(url: str, keeps: bool) -> None:
    assert keeps_key(url) is keeps


def test_a_stage_sends_no_key_in_plain_text() -> None:
    error = refused("http://api.example.com/v1", api_key_secret_ref=KEY)
    assert isinstance(error, BadConfigError)
    assert "endpoint.url would send the key in plain text; begin it with https://" in str(error)


def test_a_redirect_is_not_followed_with_the_key() -> None:
    with serve_chat(lambda body: completion("x")) as other:
        moved = Answer(b"", 307, {"Location": f"{other.url}/chat/completions"})
        with serve_chat(lambda body: moved) as server:
            assert "redirects (status 307)" in str(refused(server.url, api_key_secret_ref=KEY))
    assert other.asked == []


# Answers


def packed(data: bytes, encoding: str) -> Answer:
    encoders = {"gzip": gzip.compress, "deflate": zlib.compress}
    return Answer(encoders[encoding](data), headers={"Content-Encoding": encoding})


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_is_read_though_none_was_asked_for(encoding: str) -> None:
    body = json.dumps(completion("How?").body).encode()
    with serve_chat(lambda _: packed(body, encoding)) as server:
        (reply,) = endpoint(server.url).complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)])
    assert reply is not None
    assert reply.text == "How?"


LONG = b'{"choices": "' + b"x" * (LONGEST_ANSWER + 1)


@pytest.mark.parametrize(
    "answer",
    [Answer(LONG), packed(LONG, "gzip"), packed(b"0" * 2**28, "deflate"), Answer(LONG, 500), Answer(LONG, 404)],
)
def test_an_answer_that_does_not_end_is_not_read_to_its_end(answer: Answer) -> None:
    with serve_chat(lambda _: answer) as server:
        error = refused(server.url)
    assert isinstance(error, BadConfigError)
    assert "answers with more than 4 MiB, which no chat completion needs" in str(error)


def test_alternatives_are_given_up_before_an_answer_is_too_long() -> None:
    def answer(body: dict[str, Any]) -> Answer:
        return Answer(LONG) if "top_logprobs" in body else completion("7")

    request = ChatRequest("Good?", 0.0, 1.0, 8, seed=1, choices=tuple("0123456789"), logprobs=True)
    with serve_chat(answer) as server:
        (reply,) = endpoint(server.url).complete([request])
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
        (reply,) = endpoint(server.url, api_key_secret_ref=KEY).complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)])
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

PROXIES = {"HTTPS_PROXY": "http://proxy:3128", "http_proxy": "proxy:3128"}


@pytest.mark.parametrize(
    ("url", "exempt", "proxy"),
    [
        ("https://api.example.com/v1", "", "http://proxy:3128"),
        ("http://api.example.com/v1", "", "http://proxy:3128"),
        ("https://api.example.com/v1", "example.com", None),
        ("https://api.example.com/v1", ".example.com, other", None),
        ("https://api.example.com/v1", "*.example.com", None),
        ("https://api.example.com:8443/v1", "api.example.com:8443", None),
        ("https://api.example.com/v1", "api.example.com:8443", "http://proxy:3128"),
        ("https://notexample.com/v1", "example.com", "http://proxy:3128"),
        ("http://10.1.2.3/v1", "10.0.0.0/8", None),
        ("http://11.1.2.3/v1", "10.0.0.0/8,nonsense/x", "http://proxy:3128"),
        ("http://vllm.models.svc:8000/v1", ".svc,.cluster.local", None),
        ("https://api.example.com/v1", "*", None),
    ],
)
def test_proxies_are_those_of_the_environment(url: str, exempt: str, proxy: str | None) -> None:
    assert find_proxy(url, PROXIES | {"NO_PROXY": exempt}) == proxy
    assert find_proxy(url, {"ALL_PROXY": "http://all"}) == "http://all"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_very_machine_is_asked_without_a_proxy(host: str) -> None:
    environment = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    with serve_chat(lambda _: completion("x")) as server:
        found = endpoint(server.url.replace("127.0.0.1", host), environment)
        assert found.complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)]) != [None]


def test_other_machines_are_asked_through_the_proxy_but_for_a_key_in_plain_text(
    resolve: dict[str, list[list[str]]],
) -> None:
    with serve_chat(lambda _: completion("x"), any_path=True) as proxy, serve_chat(lambda _: completion("x")) as server:
        environment = {"HTTP_PROXY": proxy.url.removesuffix("/v1")}
        request = ChatRequest("Write.", 1.0, 1.0, 8, seed=1)
        endpoint("http://models.example.com/v1", environment).complete([request])
        assert len(proxy.asked) == 1
        resolve["vllm"] = [["127.0.0.1"]]
        endpoint(f"http://vllm:{port_of(server.url)}", environment, api_key_secret_ref=KEY).complete([request])
    assert (len(proxy.asked), server.keys) == (1, [f"Bearer {SECRET}"])
