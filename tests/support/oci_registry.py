"""A real OCI registry on the loopback interface: Debian's docker-registry, with TLS by a CA of its own, and keys."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.s3_server import free_port, wait_for

USERNAME = "pusher"
PASSWORD = "its-password"  # noqa: S105 - of a server that lives for one test
_HASH = "$2y$04$Gei.E1085RcFqCH582z5NuhviPRdxxJwJ4eqnVzCBppNzBsxJwyIq"
"""Of the password, by bcrypt, the only function that the registry knows."""
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Registry:
    """A running registry."""

    host: str
    ca: Path
    """Certificate of its authority."""
    folder: Path

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Ask it with the right keys."""
        import ssl

        context = ssl.create_default_context(cafile=str(self.ca))
        url = f"https://{self.host}/v2/{path}"
        return httpx.get(url, auth=(USERNAME, PASSWORD), verify=context, headers=headers)

    def blob(self, digest: str) -> Path:
        """The file that holds a blob."""
        algorithm, _, name = digest.partition(":")
        return self.folder / "docker/registry/v2/blobs" / algorithm / name[:2] / name / "data"


def docker_registry() -> str:
    """The program; installed as root on Debian where it is missing. Skips where that cannot be done."""
    if shutil.which("docker-registry") is None:
        if os.getuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip("there is no docker-registry, and no right to install it")
        subprocess.run([ROOT / "tests/cluster/debian.sh", "docker-registry"], check=True)
    return "docker-registry"


@contextmanager
def oci_registry(folder: Path, port: int = 0) -> Iterator[Registry]:
    """Serve what is below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    ca = write_registry_settings(folder, folder, folder / "data", f"127.0.0.1:{port}", "IP:127.0.0.1")
    command = [docker_registry(), "serve", str(folder / "config.yaml")]
    with (folder / "log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for(port, process)
            yield Registry(f"127.0.0.1:{port}", ca, folder / "data")
        finally:
            process.kill()


def write_registry_settings(folder: Path, seen: Path, data: Path, listens: str, names: str) -> Path:
    """Write what a registry reads at its start into a folder, which it sees at another path; gives its authority.

    It keeps what it is given in `data`, listens at HOST:PORT, and its certificate is for `names`, such as
    `DNS:registry,IP:127.0.0.1`.
    """
    ca = _write_certificates(folder, names)
    (folder / "htpasswd").write_text(f"{USERNAME}:{_HASH}\n")
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        "auth": {"htpasswd": {"realm": "tests", "path": str(seen / "htpasswd")}},
        "http": {
            "addr": listens,
            "secret": "tests",
            "tls": {"certificate": str(seen / "server.pem"), "key": str(seen / "server.key")},
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return ca


def _write_certificates(folder: Path, names: str) -> Path:
    """An authority and the server's certificate, once for a folder."""
    ca = folder / "ca.pem"
    if ca.is_file():
        return ca
    subject = ["-subj", "/CN=tests", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    _openssl("req", "-x509", *subject, "-keyout", folder / "ca.key", "-out", ca)
    _openssl("req", *subject[:2], *subject[4:], "-keyout", folder / "server.key", "-out", folder / "server.csr")
    (folder / "names").write_text(f"subjectAltName={names}")
    signed = ["-CA", ca, "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", "2", "-extfile", folder / "names"]
    _openssl("x509", "-req", "-in", folder / "server.csr", *signed, "-out", folder / "server.pem")
    return ca


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
