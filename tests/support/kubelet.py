"""A kubelet's log endpoint: the API server asks it for what containers have written. The pods themselves are played."""

import ssl
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Kubelet:
    """Logs by pod; a stream ends once its pod has ended, or is cut."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._changed = threading.Condition()
        self._lines: dict[str, list[str]] = defaultdict(list)
        self._ended: set[str] = set()
        self._cuts = 0

    def write(self, pod: str, *lines: str) -> None:
        """Lines that the pod's container has written."""
        with self._changed:
            self._lines[pod] += lines
            self._changed.notify_all()

    def end(self, pod: str) -> None:
        """The pod's container has ended."""
        with self._changed:
            self._ended.add(pod)
            self._changed.notify_all()

    def cut(self) -> None:
        """Cut all streams, as a load balancer does."""
        with self._changed:
            self._cuts += 1
            self._changed.notify_all()

    def read(self, pod: str, query: dict[str, list[str]]) -> Iterator[str]:
        """Lines of a pod's log as the kubelet sends them."""
        since = query.get("sinceTime", [""])[0]
        tail = query.get("tailLines")
        with self._changed:
            cuts, place = self._cuts, 0
            if tail:
                place = max(0, len(self._lines[pod]) - int(tail[0]))
        while True:
            with self._changed:
                while not (over := "follow" not in query or pod in self._ended or cuts != self._cuts):
                    if len(self._lines[pod]) > place:
                        break
                    self._changed.wait()
                found = self._lines[pod][place:]
            for number, line in enumerate(found, place):
                stamp = f"{_T0 + timedelta(seconds=number):%Y-%m-%dT%H:%M:%S.000000000Z}"
                if stamp[:19] >= since[:19]:
                    yield f"{stamp} {line}\n" if "timestamps" in query else f"{line}\n"
            place += len(found)
            if over and not found:
                return


def a_node(name: str, port: int) -> dict[str, Any]:
    """A node whose kubelet listens on a loopback port."""
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}


@contextmanager
def serve_kubelet(folder: Path) -> Iterator[Kubelet]:
    """Serve `/containerLogs/NAMESPACE/POD/CONTAINER` by TLS on a loopback port."""
    certificate, key = folder / "kubelet.crt", folder / "kubelet.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kubelet", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            pod = url.path.split("/")[3]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            for line in kubelet.read(pod, parse_qs(url.query)):
                self.wfile.write(line.encode())
                self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the library has
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    kubelet = Kubelet(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kubelet
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
