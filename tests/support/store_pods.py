"""An S3 server, an OCI registry and an MLflow server in pods, behind Services whose ports are not those of the pods."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from lab.cluster import ROOT, Cluster, own_namespace
from lab.cluster_reads import Object
from lab.processes import free_port, running
from support import mlflow_server, oci_registry, s3_server
from support.cluster_runs import a_pod, until
from support.network_policies import DENY_ALL, a_policy, pods_of, port

IMAGE: Final = "localhost/stores:test"
_SCRIPTS: Final = ROOT / "tests" / "cluster"
_CLAIM: Final = "stores"
_PATIENCE: Final = 60.0
_SETTINGS: Final = "registry"
_SETTINGS_PLACE: Final = "/etc/registry"


class Store(StrEnum):
    """A server, by the name of its pod and its Service."""

    S3 = "s3"
    REGISTRY = "registry"
    MLFLOW = "mlflow"


POD_PORTS: Final = {Store.S3: 7070, Store.REGISTRY: 5000, Store.MLFLOW: 5001}
SERVICE_PORTS: Final = {Store.S3: 80, Store.REGISTRY: 443, Store.MLFLOW: 80}


@dataclass(frozen=True)
class Stores:
    """The servers in a namespace of their own, in which all that is not allowed is denied."""

    cluster: Cluster
    namespace: str
    ca: Path
    """Certificate of the registry's authority."""

    def host(self, store: Store) -> str:
        """Name of a server's Service."""
        return f"{store}.{self.namespace}.svc"

    def kubectl(self, *arguments: str, manifest: object = None) -> str:
        """Run kubectl in the namespace of the servers."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, manifest=manifest)

    def let_in(self, namespace: str) -> None:
        """Allow the pods of runs in a namespace to connect to the servers."""
        runs = {**pods_of(namespace), "podSelector": {"matchLabels": {"app.kubernetes.io/managed-by": "dynalign"}}}
        for store in Store:
            rule = {"from": [runs], "ports": [port(POD_PORTS[store])]}
            self.kubectl(
                "create", "-f-", manifest=a_policy(f"{store}-from-{namespace}", {"app": store}, ingress=[rule])
            )

    def start(self, *stores: Store) -> None:
        """Create the pods of servers, and wait until they answer; what they had stored is there."""
        for store in stores:
            self.kubectl("create", "-f-", manifest=self._pod(store))
        for store in stores:
            self.kubectl("wait", f"pod/{store}", "--for=condition=Ready", "--timeout=300s")

    def kill(self, store: Store) -> None:
        """End a server at once."""
        self.kubectl("delete", "pod", store, "--grace-period=0", "--force")

    def cluster_ip(self, store: Store) -> str:
        """Address of a server's Service."""
        return self.kubectl("get", "service", store, "-o", "jsonpath={.spec.clusterIP}")

    @contextmanager
    def forward(self, folder: Path, store: Store) -> Iterator[str]:
        """`kubectl port-forward` to a server; gives HOST:PORT on loopback. The log goes to the folder."""
        local = free_port()
        ports = f"{local}:{POD_PORTS[store]}"
        command = self.cluster.command("-n", self.namespace, "port-forward", f"pod/{store}", ports)
        with running(folder, command, f"port-forward-{store}"):
            until(lambda: _listens(local), f"a way to {store}", lambda: "", _PATIENCE)
            yield f"127.0.0.1:{local}"

    def _pod(self, store: Store) -> Object:
        pod = a_pod(store, ["sh", "-ec", _command(store, self.namespace)], IMAGE, _CLAIM, read_only=False)
        pod["metadata"]["labels"] = {"app": store}
        (container,) = pod["spec"]["containers"]
        container["readinessProbe"] = {"tcpSocket": {"port": POD_PORTS[store]}, "periodSeconds": 1}
        if store is Store.REGISTRY:
            pod["spec"]["volumes"].append({"name": "settings", "secret": {"secretName": _SETTINGS}})
            container["volumeMounts"].append({"name": "settings", "mountPath": _SETTINGS_PLACE})
        return pod


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def open_stores(cluster: Cluster, folder: Path) -> Iterator[Stores]:
    """All servers, started; they go with their namespace."""
    _give_image()
    with own_namespace(cluster, "stores", awaits_end=False) as namespace:
        names = f"DNS:{Store.REGISTRY}.{namespace}.svc,IP:127.0.0.1"
        settings = folder / "registry"
        settings.mkdir()
        ca = oci_registry.write_registry_settings(
            settings, Path(_SETTINGS_PLACE), Path("/volume/registry"), f":{POD_PORTS[Store.REGISTRY]}", names
        )
        stores = Stores(cluster, namespace, ca)
        stores.kubectl("create", "-f-", manifest=DENY_ALL)
        files = [f"--from-file={settings / name}" for name in ("config.yaml", "htpasswd", "server.pem", "server.key")]
        stores.kubectl("create", "secret", "generic", _SETTINGS, *files)
        stores.kubectl("create", "-f-", manifest=_claim())
        for store in Store:
            stores.kubectl("create", "-f-", manifest=_service(store))
        stores.start(*Store)
        yield stores


def _command(store: Store, namespace: str) -> str:
    port = POD_PORTS[store]
    match store:
        case Store.S3:
            keys = f"--access '{s3_server.USERNAME}' --secret '{s3_server.PASSWORD}'"
            return (
                f"mkdir -p /volume/s3/{s3_server.BUCKET} /volume/metadata\n"
                f"exec versitygw {keys} --port :{port} --quiet posix --sidecar /volume/metadata /volume/s3"
            )
        case Store.REGISTRY:
            return f"exec docker-registry serve {_SETTINGS_PLACE}/config.yaml"
        case Store.MLFLOW:
            hosts = f"{Store.MLFLOW}.{namespace}.svc,127.0.0.1:*"
            stored = "--backend-store-uri sqlite:////volume/mlflow.db --default-artifact-root /volume/mlflow"
            return f"exec mlflow server --host 0.0.0.0 --port {port} --workers 1 --allowed-hosts '{hosts}' {stored}"


def _service(store: Store) -> Object:
    ports = [{"port": SERVICE_PORTS[store], "targetPort": POD_PORTS[store]}]
    spec = {"selector": {"app": store}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": store}, "spec": spec}


def _claim() -> Object:
    spec: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": _CLAIM}, "spec": spec}


def _give_image() -> None:
    """Build the image of the servers, and give it to the cluster."""
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(s3_server.versitygw(), Path(context) / "versitygw")
        shutil.copy(shutil.which(oci_registry.docker_registry()) or "", Path(context) / "docker-registry")
        packages = f"MLFLOW={mlflow_server.PACKAGE}"
        dockerfile = _SCRIPTS / "stores" / "Dockerfile"
        for command in (
            ["build", "stores", dockerfile, context, "--build-arg", packages],
            ["load", "stores"],
        ):
            subprocess.run([_SCRIPTS / "images.sh", *map(str, command)], check=True)


def trust(ca: Path) -> Object:
    """The ConfigMap `trust` of an authority, for the chart's value trainer.caBundle."""
    data = {"ca-bundle.crt": ca.read_text()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "trust"}, "data": data}


def a_secret(name: str, kind: str = "Opaque", **values: str) -> Object:
    """A Secret of a run's namespace."""
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name}, "stringData": values}
