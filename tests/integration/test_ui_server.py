"""`dynalign ui` as a process: who gets what over HTTP, logs that follow, reports, and its end."""

import errno
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.api.approvals import Decision, parse_request
from dynalign_operator.clusters.local.approving import read_decision
from dynalign_operator.clusters.local.workdir import Workdir, locked
from dynalign_operator.ui.access import HEADERS
from support.builders import a_run
from support.live_runs import LiveRun, a_live_run
from support.report_runs import a_work_folder
from support.ui_server import PATIENCE, UiServer, start_ui

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ui")
    a_work_folder().of_size(2, 2, 2).named("done").write(root / "runs" / "done")
    a_live_run("half", root / "runs" / "half").until(Stage.TRAIN, 2)
    (root / "secret.html").write_text("secret")
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[UiServer]:
    with start_ui(cwd=folder) as started:
        yield started.open()


def test_the_page_is_opened_by_its_token_and_kept_by_its_cookie(server: UiServer) -> None:
    page = server.get("/")
    assert page.status == 200
    cookie = server.ask(f"/?token={server.token}").headers["set-cookie"]
    assert cookie.startswith(f"dynalign-ui-{server.port}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert server.token not in page.body
    assert server.cookie.partition("=")[2] not in page.body


@pytest.mark.parametrize("path", ["/", "/assets/app.js", "/api/runs", "/api/run?key=x", "/api/logs?key=x", "/report"])
def test_every_answer_and_every_refusal_has_the_policy(server: UiServer, path: str) -> None:
    own = {"Content-Security-Policy"} if path == "/report" else set()
    for reply in (server.get(path), server.ask(path), server.ask(path, Host="evil.example")):
        for name in HEADERS.keys() - own:
            assert reply.headers[name.lower()] == HEADERS[name], (path, reply)
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("path", ["/", "/assets/app.js", "/api/runs", "/api/run?key=x", "/api/logs?key=x", "/report"])
def test_without_the_cookie_nothing_is_given(server: UiServer, path: str) -> None:
    assert server.ask(path).status == 401
    assert server.ask(path, Cookie=server.cookie, Host="evil.example").status == 403
    assert server.ask(path, Cookie=server.cookie, Sec_Fetch_Site="same-site").status == 403
    assert server.ask(path, Cookie=server.cookie, method="DELETE").status == 405


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"X_Dynalign_Token": "x"}),
        (403, {"Sec_Fetch_Site": "cross-site"}),
        (401, {"Cookie": "x=y"}),
        (415, {"Content_Type": "text/plain"}),
    ],
    ids=["other origin", "sandboxed", "no second token", "cross site", "no cookie", "a form's media type"],
)
def test_a_change_comes_from_the_page_only(server: UiServer, status: int, headers: dict[str, str]) -> None:
    wish = {"key": "local:runs/half"}
    assert server.post("/api/report", {"key": "local:runs/nothing"}).status == 404
    assert server.post("/api/report", wish, **headers).status == status
    assert server.run("local:runs/half")["report"]["madeAt"] is None


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../../../etc/passwd",
        "/assets/..%2f..%2fserver.py",
        "/assets/index.html",
        "/assets/",
        "/report?key=" + quote("local:runs/done/../../secret.html", safe=""),
        "/report?key=" + quote("local:..", safe=""),
        "/api/run?key=" + quote("local:/etc", safe=""),
        "/api/run?key=" + quote("cluster:default/r", safe=""),
        "/secret.html",
        "//evil.example/",
    ],
)
def test_no_path_leads_out_of_the_runs(server: UiServer, path: str) -> None:
    reply = server.get(path)
    assert reply.status == 404
    assert "secret" not in reply.body.replace("secret.html", "")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": "local:runs/half", "change": "delete", "generation": 1},
        {"key": "local:runs/half", "change": "suspend", "generation": 1, "spec": {}},
        {"key": "x" * 20_000, "change": "suspend", "generation": 1},
        {"key": "local:runs/half", "change": "iterations", "generation": 1, "iterations": 10**9},
        [],
    ],
)
def test_a_change_has_the_fields_that_it_has(server: UiServer, body: object) -> None:
    assert server.post("/api/change", body).status in (400, 413)


def test_runs_of_this_machine_are_not_changed(server: UiServer) -> None:
    reply = server.post("/api/change", {"key": "local:runs/half", "change": "suspend", "generation": 1})
    assert (reply.status, reply.json()["message"]) == (404, "a run of this machine is changed in its file.")


def test_a_report_is_made_and_shown_in_a_sandbox_of_its_own(server: UiServer, folder: Path) -> None:
    key = "local:runs/done"
    address = f"/report?key={quote(key, safe='')}"
    assert server.get(address).status == 404
    made = server.post("/api/report", {"key": key})
    assert (made.status, made.json()["message"]) == (200, "runs/done/report.html is up to date.")
    assert server.run(key)["report"]["madeAt"] is not None
    shown = server.get(address)
    assert "dynalign report" in shown.body
    policy = shown.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy
    file = folder / "runs" / "done" / "report.html"
    file.unlink()
    file.symlink_to(folder / "secret.html")
    refused = server.get(address)
    assert (refused.status in (404, 409), "secret" in refused.body.replace("secret.html", "")) == (True, False)


def test_a_waiting_run_of_this_machine_is_decided_as_dynalign_approve_does(server: UiServer, folder: Path) -> None:
    root, key = folder / "runs" / "waits", "local:runs/waits"
    a_work_folder().of_size(1, 2, 2).named("waits").write(root)
    gated = a_run().with_policy(approval=["BeforeTrain"])
    live = a_live_run("waits", root, gated).awaiting_approval()
    awaited = live.simulation.run.status.awaited_approval
    assert awaited is not None
    shown = server.run(key)["approval"]
    assert "Judged answers of iteration 0: the first 2 of 2 prompts" in shown["sample"]
    wish = {"key": key, **{name: shown[name] for name in ("gate", "iteration", "artifact")}, "decision": "Approved"}
    stale = server.post("/api/approve", wish | {"artifact": "sha256:other"})
    assert (stale.status, "not what the page showed" in stale.json()["message"]) == (409, True)
    assert server.post("/api/approve", wish | {"decision": "Maybe"}).status == 400
    assert server.post("/api/approve", wish, Origin="null").status == 403
    assert read_decision(Workdir(root)) is None
    sent = server.post("/api/approve", wish)
    assert sent.status == 200
    assert sent.json()["message"].endswith("would train on. `dynalign run FILE` goes on with the run.")
    request = parse_request(read_decision(Workdir(root)) or "")
    assert (request.fits(awaited), request.decision) == (True, Decision.APPROVED)


def follow(server: UiServer, key: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    headers = {"Cookie": server.cookie, "Sec-Fetch-Site": "same-origin"}
    connection.request("GET", f"/api/logs?key={quote(key, safe='')}", headers=headers)
    return connection.getresponse()


def next_event(stream: http.client.HTTPResponse) -> tuple[str, object]:
    """The next event that is no sign of life."""
    while not (line := stream.readline().decode()).startswith("event: "):
        assert line, "the stream has ended"
    return line.removeprefix("event: ").strip(), json.loads(stream.readline().decode().removeprefix("data: "))


def texts(event: tuple[str, object]) -> list[str]:
    name, lines = event
    assert name == "lines", event
    return [line["text"] for line in lines]  # type: ignore[attr-defined]


def test_logs_follow_a_run_to_its_end(server: UiServer, folder: Path) -> None:
    live: LiveRun = a_live_run("talks", folder / "runs" / "talks").until(Stage.PROMPTS, 0).saying("one", "two")
    with locked(Workdir(folder / "runs" / "talks")):
        stream = follow(server, "local:runs/talks")
        assert texts(next_event(stream)) == ["one", "two"]
        live.saying("\x1b[2Jthree")
        assert texts(next_event(stream)) == ["three"]
        live.until(Stage.JUDGE, 0).saying("four")
        assert texts(next_event(stream)) == ["four"]
        live.finished()
    assert next_event(stream) == ("end", "")
    missing = follow(server, "local:runs/nothing")
    assert next_event(missing)[0] == "problem"


def test_the_list_has_the_folders_and_says_why_there_is_no_cluster(server: UiServer) -> None:
    page = server.get("/api/runs?words=half&phase=Running").json()
    assert [row["key"] for row in page["rows"]] == ["local:runs/half"]
    assert "~/.kube/config does not exist" in page["notes"][0]


def test_ctrl_c_ends_it_while_a_log_is_followed(folder: Path) -> None:
    with locked(Workdir(folder / "runs" / "half")), start_ui("runs", cwd=folder) as started:
        stream = follow(started.open(), "local:runs/half")
        assert stream.status == 200
        started.process.send_signal(signal.SIGINT)
        assert started.process.wait(PATIENCE) == 0


def test_a_port_that_is_taken_is_said_or_passed_over(folder: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from dynalign_operator.cli.main import main; main()",
        "ui",
        "runs",
        "--no-browser",
    ]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run([*command, "--port", str(port)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 11
    assert done.stderr == f"port {port} is in use, or may not be used; name another with --port.\n"


def test_it_answers_on_loopback_only(server: UiServer) -> None:
    for address in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
        if not str(address).startswith("127."):
            with socket.socket() as attempt:
                assert attempt.connect_ex((address, server.port)) == errno.ECONNREFUSED
