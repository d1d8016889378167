"""Runs that publish to an S3 server and an OCI registry and log to MLflow, where every connection that no policy allows is denied.

The second run, whose rollout is one Job, starts from what the first has published. In its middle the registry and the
tracker are killed, and come back when its export has failed.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.layout import MANIFEST, stage_folder
from dynalign_contract.pod_paths import METRICS_PORT
from dynalign_contract.stages import ROLLOUT_STAGES, Stage
from lab.cluster import Cluster, Image, LabError
from lab.testbed import load_testbed
from support import oci_registry, s3_server
from support.cluster_runs import TINY, ClusterRun, Site, open_site, place_testbed
from support.mlflow_server import MlflowRecord
from support.network_policies import DENY_ALL
from support.store_pods import SERVICE_PORTS, Store, Stores, a_secret, open_stores, trust

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3000)]

FIRST, SECOND, THIRD = "published", "from-registry", "from-bucket"
WEIGHTS = "model.safetensors"
BASIC = "kubernetes.io/basic-auth"
METRIC = "judge.reward"
FUSED: dict[str, Any] = {
    "rollout": "Fused",
    "stages": {stage: pods for stage, pods in TINY["stages"].items() if stage not in ROLLOUT_STAGES},
}
RETRIES = 10
"""Attempts at an export while the servers that were killed come back."""

DIGESTS = """
import hashlib, json, pathlib
folder = pathlib.Path("/volume/{folder}")
print(json.dumps({{p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.is_file()}}))
"""
"""Prints the SHA-256 of each file of a folder on the volume."""

UNTIL_REFUSED = """
import socket, time
for _ in range(240):
    try:
        socket.create_connection({address}, timeout=2).close()
    except OSError as error:
        print(type(error).__name__)
        break
    time.sleep(0.25)
"""
"""Connects again and again: the rules of a pod take effect a moment after it has begun."""

READ_METRICS = """
import urllib.request
print(urllib.request.urlopen("http://{host}:{port}/metrics", timeout=5).read().decode())
"""


@dataclass(frozen=True)
class Continued:
    """The run that started from what another has published."""

    run: ClusterRun
    failure: str
    """What its export said while the registry was away."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def stores(cluster: Cluster, folder: Path) -> Iterator[Stores]:
    with open_stores(cluster, folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def site(cluster: Cluster, stores: Stores, operator_image: Image, trainer_image: Image) -> Iterator[Site]:
    """A namespace in which everything is denied before the operator comes; the chart has no values for networks."""
    first = [
        DENY_ALL,
        trust(stores.ca),
        a_secret("s3", BASIC, username=s3_server.USERNAME, password=s3_server.PASSWORD),
        a_secret("registry", BASIC, username=oci_registry.USERNAME, password=oci_registry.PASSWORD),
        a_secret("mlflow", bearer="one"),
    ]
    values = {"trainer.caBundle.configMap": "trust"}
    with open_site(cluster, operator_image, trainer_image, "publish", first=first, values=values) as opened:
        stores.let_in(opened.namespace)
        place_testbed(opened, load_testbed())
        yield opened


def spec(stores: Stores, name: str, **model: Any) -> dict[str, Any]:
    """One iteration, published under its name to both stores, and logged."""
    s3 = {"endpoint": f"http://{stores.host(Store.S3)}", "bucket": s3_server.BUCKET, "prefix": name}
    oci = {"registry": stores.host(Store.REGISTRY), "repository": f"models/{name}", "tag": "v1"}
    mlflow = {"url": f"http://{stores.host(Store.MLFLOW)}", "experiment": name, "retries": 0}
    return {
        **TINY,
        "iterations": 1,
        "policy": {"retries": RETRIES},
        "model": model or TINY["model"],
        "tracking": {"mlflow": mlflow | {"apiKeySecretRef": {"name": "mlflow", "key": "bearer"}}},
        "export": {
            "publish": [
                {"s3": s3 | {"credentialsSecretRef": {"name": "s3"}}},
                {"oci": oci | {"credentialsSecretRef": {"name": "registry"}}},
            ]
        },
    }


@pytest.fixture(scope="module")
def published(site: Site, stores: Stores) -> ClusterRun:
    """The first run, at its end; while it ran, the operator could read the metrics of its stages."""
    run = site.apply(FIRST, spec(stores, FIRST))
    run.until(lambda: "dynalign_stage" in metrics_as_the_operator_reads_them(run), "metrics of a stage")
    run.until_completed()
    run.until_reported()
    return run


@pytest.fixture(scope="module")
def continued(published: ClusterRun, stores: Stores) -> Continued:
    """The second run, whose registry and tracker were away when they were wanted."""
    keys = {"credentialsSecretRef": {"name": "registry"}}
    fields = spec(stores, SECOND, uri=published_at(published)["oci"], **keys)
    run = published.site.apply(SECOND, {**fields, **FUSED})
    run.until(lambda: is_fetched(run), "the fetched model")
    for store in (Store.REGISTRY, Store.MLFLOW):
        stores.kill(store)
    run.until(lambda: export_of(run).get("failures"), "a failed export")
    failure = export_of(run)["message"]
    for store in (Store.MLFLOW, Store.REGISTRY):  # the run goes on with the registry, and then logs its end
        stores.start(store)
    run.until_completed()
    run.until_reported()
    return Continued(run, failure)


def metrics_as_the_operator_reads_them(run: ClusterRun) -> str:
    """The metrics of a pod that runs; empty where there is none, or it has ended meanwhile."""
    for pod in run.pods():
        if pod["status"].get("phase") == "Running":
            script = READ_METRICS.format(host=pod["status"]["podIP"], port=METRICS_PORT)
            try:
                return run.site.kubectl("exec", "deployment/dynalign", "--", "python", "-c", script)
            except LabError:
                continue
    return ""


def is_fetched(run: ClusterRun) -> bool:
    """Whether the run has its base model."""
    return (run.status.get("fetch") or {}).get("phase") == "Succeeded"


def export_of(run: ClusterRun) -> dict[str, Any]:
    """The status of the export stage; empty before it begins."""
    found: dict[str, Any] = run.status.get("export") or {}
    return found


def published_at(run: ClusterRun) -> dict[str, str]:
    """Where the run says that its model is, by the scheme of the address."""
    return {place["uri"].partition(":")[0]: place["uri"] for place in run.status["published"]}


def digests(run: ClusterRun, stage: Stage) -> dict[str, str]:
    """SHA-256 of what a stage has left on the run's volume, by the name of the file."""
    script = DIGESTS.format(folder=f"{run.name}/{stage_folder(stage)}")
    found: dict[str, str] = json.loads(run.site.run_pod(f"{run.name}-{stage}-digests", script, run.name))
    return found


def in_the_bucket(stores: Stores, folder: Path, prefix: str) -> dict[str, str]:
    """SHA-256 of the objects below a prefix."""
    with stores.forward(folder, Store.S3) as address:
        client = s3_server.s3_client(f"http://{address}")
        where = {"Bucket": s3_server.BUCKET}
        keys = [entry["Key"] for entry in client.list_objects_v2(**where, Prefix=prefix)["Contents"]]
        bodies = {key: client.get_object(**where, Key=key)["Body"].read() for key in keys}
    return {key.removeprefix(f"{prefix}/"): hashlib.sha256(body).hexdigest() for key, body in bodies.items()}


def in_the_registry(stores: Stores, folder: Path, uri: str) -> dict[str, str]:
    """SHA-256 of the layers of an artifact, each of which is read, by the name of its file."""
    repository, _, digest = uri.removeprefix(f"oci://{stores.host(Store.REGISTRY)}/").partition("@")
    with stores.forward(folder, Store.REGISTRY) as address:
        registry = oci_registry.Registry(address, stores.ca, folder)
        manifest = registry.get(f"{repository}/manifests/{digest}", Accept=oci_registry.MANIFEST_TYPE)
        assert f"sha256:{hashlib.sha256(manifest.content).hexdigest()}" == digest
        assert registry.get(f"{repository}/manifests/v1", Accept=oci_registry.MANIFEST_TYPE).content == manifest.content
        names = {
            layer["digest"]: layer["annotations"]["org.cncf.model.filepath"] for layer in manifest.json()["layers"]
        }
        blobs = {name: registry.get(f"{repository}/blobs/{digest}").content for digest, name in names.items()}
    return {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}


def test_the_first_run_is_published_whole_to_both(published: ClusterRun, stores: Stores, folder: Path) -> None:
    assert_published(published, stores, folder)


def assert_published(run: ClusterRun, stores: Stores, folder: Path) -> None:
    """Both stores hold the very bytes of the export, at the addresses that the status names."""
    places = published_at(run)
    assert places["s3"] == f"s3://{s3_server.BUCKET}/{run.name}"
    exported = digests(run, Stage.EXPORT)
    assert {WEIGHTS, MANIFEST} < exported.keys()
    assert in_the_bucket(stores, folder, run.name) == exported
    model = {name: digest for name, digest in exported.items() if name != MANIFEST}
    assert in_the_registry(stores, folder, places["oci"]) == model


def test_the_tracker_has_the_run_and_its_iteration_once(published: ClusterRun, stores: Stores, folder: Path) -> None:
    assert_tracked(published, stores, folder)


def assert_tracked(run: ClusterRun, stores: Stores, folder: Path) -> None:
    """MLflow has a parent run and its iteration, ended, with the numbers of the status."""
    with stores.forward(folder, Store.MLFLOW) as address:
        record = MlflowRecord(f"http://{address}")
        parent, nested = record.runs(run.name)
        curves = [record.history(one["info"]["run_id"], METRIC) for one in (parent, nested)]
    assert [one["info"]["status"] for one in (parent, nested)] == ["FINISHED", "FINISHED"]
    tags = {entry["key"]: entry["value"] for entry in nested["data"]["tags"]}
    assert (tags["dynalign.run"], tags["dynalign.iteration"]) == (run.name, "0")
    assert tags["mlflow.parentRunId"] == parent["info"]["run_id"]
    (iteration,) = run.status["iterations"]
    for curve in curves:
        ((step, reward),) = curve
        assert step == 0
        assert reward == pytest.approx(iteration["reward"])
    (trained,) = (stage for stage in iteration["stages"] if stage["stage"] == Stage.TRAIN)
    assert tags["dynalign.artifact.train"] == trained["artifact"]["digest"]


def test_a_run_starts_from_the_registry(published: ClusterRun, continued: Continued) -> None:
    exported, fetched = digests(published, Stage.EXPORT), digests(continued.run, Stage.FETCH)
    assert fetched[WEIGHTS] == exported[WEIGHTS]
    assert fetched["tokenizer.json"] == exported["tokenizer.json"]
    assert digests(continued.run, Stage.EXPORT)[WEIGHTS] != exported[WEIGHTS], "it was trained further"


def test_a_run_starts_from_the_bucket(published: ClusterRun, stores: Stores) -> None:
    server = {"endpoint": f"http://{stores.host(Store.S3)}"}
    keys = {"credentialsSecretRef": {"name": "s3"}}
    run = published.site.apply(THIRD, spec(stores, THIRD, uri=published_at(published)["s3"], s3=server, **keys))
    run.until(lambda: is_fetched(run), "the fetched model")
    run.patch(suspend=True)
    assert digests(run, Stage.FETCH)[WEIGHTS] == digests(published, Stage.EXPORT)[WEIGHTS]
    run.site.kubectl("delete", "ar", THIRD)


def test_an_export_says_which_registry_was_away(continued: Continued, stores: Stores) -> None:
    assert "spec.export.publish[1].oci" in continued.failure
    assert stores.host(Store.REGISTRY) in continued.failure


def test_a_registry_that_comes_back_has_all_of_it(continued: Continued, stores: Stores, folder: Path) -> None:
    assert export_of(continued.run)["attempt"] > 1
    assert_published(continued.run, stores, folder)


def test_a_tracker_that_comes_back_has_all_of_it(continued: Continued, stores: Stores, folder: Path) -> None:
    assert_tracked(continued.run, stores, folder)


@pytest.mark.parametrize("store", Store)
def test_a_pod_that_no_policy_speaks_of_reaches_nothing(store: Store, published: ClusterRun, stores: Stores) -> None:
    """The same servers that the run has reached, from a pod beside it."""
    address = (stores.cluster_ip(store), SERVICE_PORTS[store])
    said = published.site.run_pod(f"probe-{store}", UNTIL_REFUSED.format(address=address), FIRST)
    assert said.strip(), f"a pod without an allowance reached {store} for a minute"


def test_helm_test_gets_through(published: ClusterRun) -> None:
    published.site.cluster.helm("test", "dynalign", "--namespace", published.site.namespace, "--timeout", "180s")
