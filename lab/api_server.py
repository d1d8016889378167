"""An API server with etcd and the controllers, but no node; tests and fake nodes play the kubelet."""

import contextlib
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import create_default_context

import yaml

from lab.audit import Request, read_requests
from lab.cluster import CACHE, LabError, built_tools
from lab.processes import free_port, running

PATIENCE = 60.0
"""Seconds for a component to come up."""
_TOKEN = "admin-of-the-tests"  # noqa: S105 - of a server that lives for one test
_CRD = Path(__file__).parents[1] / "crds" / "dynalign.io_alignmentruns.yaml"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}
"""What service accounts ask for, and nothing else."""


@dataclass(frozen=True)
class ApiServer:
    """A running API server."""

    folder: Path
    kubeconfig: Path

    def kubectl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl; what it says on standard input is `text`."""
        command = [str(CACHE / "bin" / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=PATIENCE)

    def apply(self, *documents: object) -> subprocess.CompletedProcess[str]:
        """Apply objects, as a user does."""
        return self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(documents))

    def kubeconfig_of(self, account: str, namespace: str) -> Path:
        """A kubeconfig with a token of this service account, which must exist."""
        created = self.kubectl("create", "token", account, "--namespace", namespace)
        if created.returncode != 0:
            raise LabError(created.stderr)
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["users"][0]["user"]["token"] = created.stdout.strip()
        path = self.folder / f"{namespace}-{account}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def requests_of(self, account: str, namespace: str) -> list[Request]:
        """What this service account has asked for until now; empty unless the server was started with `audit`."""
        return read_requests(self.folder / "audit.log", f"system:serviceaccount:{namespace}:{account}")


@contextmanager
def start_api_server(folder: Path, *, audit: bool = False) -> Iterator[ApiServer]:
    """Start etcd, kube-apiserver and kube-controller-manager on loopback ports, and install the CRD.

    With `audit` every request of a service account is put down, see `ApiServer.requests_of`.
    """
    etcd_port, peer_port, port, controller_port = (free_port() for _ in range(4))
    bin_folder = built_tools()
    certificates = folder / "certificates"
    certificates.mkdir(parents=True)
    kubeconfig = folder / "kubeconfig"
    with contextlib.ExitStack() as stack:

        def start(name: str, *arguments: str) -> None:
            stack.enter_context(running(folder, [str(bin_folder / name), *arguments], name))

        start(
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
            "--unsafe-no-fsync",
        )
        start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            f"--secure-port={port}",
            *_identity_arguments(folder, certificates),
            *(_audit(folder) if audit else ()),
        )
        authority = certificates / "apiserver.crt"
        _await(f"https://127.0.0.1:{port}/readyz", authority)
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(port, authority)))
        server = ApiServer(folder, kubeconfig)
        _install_crd(server)
        # After the CRD: the garbage collector learns of later ones half a minute late, and tries again seldom.
        start(
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={controller_port}",
            f"--cert-dir={certificates}",
            "--controllers=job-controller,garbage-collector-controller,persistentvolumeclaim-protection-controller,namespace-controller,ttl-after-finished-controller",
            "--leader-elect=false",
            "--kube-api-qps=500",
            "--kube-api-burst=500",
            "--concurrent-job-syncs=20",
        )
        yield server


def _identity_arguments(folder: Path, certificates: Path) -> list[str]:
    """Arguments of the API server about addresses, tokens and rights; writes the files that they name."""
    (folder / "tokens").write_text(f"{_TOKEN},admin,admin,system:masters\n")
    key = certificates / "service-account.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    return [
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--cert-dir={certificates}",
        f"--token-auth-file={folder / 'tokens'}",
        "--service-cluster-ip-range=10.97.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
    ]


def _install_crd(server: ApiServer) -> None:
    """Install the CRD and wait until it is served. Raises LabError."""
    applied = server.kubectl("apply", "--server-side", "-f", str(_CRD))
    if applied.returncode != 0:
        raise LabError(applied.stderr)
    end = time.monotonic() + PATIENCE
    while server.kubectl("get", "alignmentruns").returncode != 0:
        if time.monotonic() >= end:
            raise LabError(f"the CRD was not served within {PATIENCE} s")
        time.sleep(0.1)  # between two looks at it


def _audit(folder: Path) -> list[str]:
    policy = folder / "audit-policy.yaml"
    policy.write_text(yaml.safe_dump(_AUDIT_POLICY))
    return [f"--audit-policy-file={policy}", f"--audit-log-path={folder / 'audit.log'}"]


def _kubeconfig(port: int, authority: Path) -> dict[str, object]:
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


def _await(url: str, authority: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {_TOKEN}"})
            context = create_default_context(cafile=str(authority))
            with urllib.request.urlopen(request, timeout=5, context=context):
                return
        except (OSError, urllib.error.URLError):
            if time.monotonic() >= end:
                raise LabError(f"{url} did not answer within {PATIENCE} s") from None
            time.sleep(0.1)  # between two looks at it
