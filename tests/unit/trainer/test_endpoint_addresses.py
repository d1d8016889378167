"""Where a stage's requests may go: what a URL gives away, what its name leads to, and what an answer may hold."""

import socket
from typing import Any

import pytest
from pydantic import ValidationError

from dynalign_contract.addresses import FORBIDDEN_URL, describe_forbidden, matches
from dynalign_contract.endpoints import EndpointSettings, keeps_key
from dynalign_contract.errors import BadConfigError
from dynalign_contract.preload import WORKDIR_VARIABLE
from dynalign_contract.references import SecretKeyRef
from dynalign_trainer.endpoints.completions import ChatRequest
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.endpoints.transport import find_proxy
from support.chat_server import Answer, completion, serve_chat
from support.endpoints import SECRET, impatient_endpoint, refused

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
KEY = SecretKeyRef(name="keys", key="author")


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
    assert "are never asked. Write another one in prompts.agents.author.endpoint.url" in str(error)


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
        found = impatient_endpoint(f"http://models.example.com:{port_of(server.url)}")
        (reply,) = found.complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)])
    assert reply is not None
    assert resolve["models.example.com"] == [["169.254.169.254"]]


def test_of_several_addresses_the_next_is_tried_and_forbidden_ones_are_not(resolve: dict[str, list[list[str]]]) -> None:
    with serve_chat(lambda body: completion("x")) as server:
        resolve["models.example.com"] = [["169.254.169.254", "127.0.0.9", "127.0.0.1"]]
        found = impatient_endpoint(f"http://models.example.com:{port_of(server.url)}")
        assert found.complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)]) != [None]


def test_the_server_is_told_the_name_that_the_run_file_gives(resolve: dict[str, list[list[str]]]) -> None:
    with serve_chat(lambda body: completion("x")) as server:
        resolve["models.example.com"] = [["127.0.0.1"]]
        url = f"http://models.example.com:{port_of(server.url)}"
        impatient_endpoint(url).complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)])
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
        laptop = impatient_endpoint(url, POD | {WORKDIR_VARIABLE: "/home/me/runs/r"})
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
        found = impatient_endpoint(server.url.replace("127.0.0.1", host), environment)
        assert found.complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)]) != [None]


def test_other_machines_are_asked_through_the_proxy_but_for_a_key_in_plain_text(
    resolve: dict[str, list[list[str]]],
) -> None:
    with serve_chat(lambda _: completion("x"), any_path=True) as proxy, serve_chat(lambda _: completion("x")) as server:
        environment = {"HTTP_PROXY": proxy.url.removesuffix("/v1")}
        request = ChatRequest("Write.", 1.0, 1.0, 8, seed=1)
        impatient_endpoint("http://models.example.com/v1", environment).complete([request])
        assert len(proxy.asked) == 1
        resolve["vllm"] = [["127.0.0.1"]]
        impatient_endpoint(f"http://vllm:{port_of(server.url)}", environment, api_key_secret_ref=KEY).complete(
            [request]
        )
    assert (len(proxy.asked), server.keys) == (1, [f"Bearer {SECRET}"])
