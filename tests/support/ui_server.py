"""`dynalign ui` as a process, and requests to it as a browser or an attacker sends them."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from dynalign_operator.ui.access import FORM_HEADER
from lab.processes import free_port

_DYNALIGN = (sys.executable, "-c", "from dynalign_operator.cli.main import main; main()")
PATIENCE = 120.0


@dataclass(frozen=True)
class Reply:
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class UiServer:
    """A running page."""

    address: str
    """With the token."""
    process: subprocess.Popen[str]
    cookie: str = ""
    form: str = ""
    _port: int = field(init=False)

    def __post_init__(self) -> None:
        self._port = urlsplit(self.address).port or 0

    @property
    def port(self) -> int:
        return self._port

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return urlsplit(self.address).query.partition("=")[2]

    def ask(self, path: str, method: str = "GET", body: str = "", **headers: str) -> Reply:
        """One request with exactly these headers; names have underscores for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in given, skip_accept_encoding=True)
        for name, value in given.items():
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode() if body else None)
        answer = connection.getresponse()
        found = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())
        connection.close()
        return found

    def open(self) -> "UiServer":
        """Open the page as a browser does: cookie and form token are known from then on."""
        page = self.ask(f"/?token={self.token}")
        assert page.status == 200, page
        self.cookie = page.headers["set-cookie"].partition(";")[0]
        self.form = page.body.partition('name="dynalign-token" content="')[2].partition('"')[0]
        return self

    def get(self, path: str, **headers: str) -> Reply:
        """A request of the page itself."""
        return self.ask(path, Cookie=self.cookie, Sec_Fetch_Site="same-origin", **headers)

    def run(self, key: str) -> Any:
        return self.get(f"/api/run?key={quote(key, safe='')}").json()

    def post(self, path: str, value: object, **headers: str) -> Reply:
        """A change of the page itself; `headers` take the place of its own."""
        own = {
            "Cookie": self.cookie,
            "Origin": self.origin,
            "Sec_Fetch_Site": "same-origin",
            "Content_Type": "application/json",
            FORM_HEADER.replace("-", "_"): self.form,
        }
        return self.ask(path, "POST", json.dumps(value), **(own | headers))


@contextmanager
def start_ui(*arguments: str, cwd: Path, kubeconfig: Path | None = None) -> Iterator[UiServer]:
    """Start the command without a browser, and end it as Ctrl-C does."""
    environment = {k: v for k, v in os.environ.items() if k not in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST")}
    environment |= {"HOME": str(cwd), **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}
    command = [*_DYNALIGN, "ui", *arguments, "--no-browser", "--port", str(free_port())]
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            assert "http://" in said, said
            yield UiServer(said.split()[-1], process)
        finally:
            process.terminate()
            process.wait(PATIENCE)
