"""A real S3 server on the loopback interface: versitygw over a folder, built once from its Go module."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MODULE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
USERNAME = "an-access-key"
PASSWORD = "the-secret-part-of-it"  # noqa: S105 - of a server that lives for one test
BUCKET = "models"


@dataclass
class S3Process:
    """A running server."""

    url: str
    folder: Path
    """Where the objects of each bucket lie, as files."""
    process: subprocess.Popen[bytes]

    def object(self, key: str) -> Path:
        """The file of an object in the bucket of the tests."""
        return self.folder / BUCKET / key

    def client(self) -> Any:
        """A client with the right keys."""
        return s3_client(self.url)


def s3_client(url: str) -> Any:
    """A client with the right keys of a server of the tests."""
    import boto3
    from botocore.config import Config

    keys = {"aws_access_key_id": USERNAME, "aws_secret_access_key": PASSWORD, "region_name": "us-east-1"}
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    return boto3.client("s3", endpoint_url=url, config=config, **keys)


def versitygw() -> Path:
    """The program; built into the tests' cache where it is missing. Skips where there is neither."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynalign-tests"
    program = Path(os.environ.get("DYNALIGN_TEST_CACHE") or cache) / "bin" / "versitygw"
    if not program.is_file():
        if shutil.which("go") is None:
            pytest.skip("there is no Go to build versitygw with")
        program.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"CGO_ENABLED": "0", "GOBIN": str(program.parent)}
        subprocess.run(["go", "install", MODULE], check=True, env=environment)
    return program


@contextmanager
def s3_server(folder: Path, port: int = 0) -> Iterator[S3Process]:
    """Serve the buckets below `folder`; the bucket of the tests is made."""
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    keys = ["--access", USERNAME, "--secret", PASSWORD]
    command = [versitygw(), *keys, "--port", f"127.0.0.1:{port}", "--quiet", "posix", "--sidecar"]
    sidecar = folder.with_name(f"metadata-of-{folder.name}")
    sidecar.mkdir(exist_ok=True)
    with subprocess.Popen([*map(str, command), str(sidecar), str(folder)], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(port, process)
            yield S3Process(f"http://127.0.0.1:{port}", folder, process)
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: "subprocess.Popen[Any]") -> None:
    """Return once the server listens. Raises when its process has ended."""
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise RuntimeError(f"the server ended with {process.returncode}")
