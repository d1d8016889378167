"""An object that is there already serves a run only when it is the very one that the run would have made."""

import asyncio
import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.clusters.kubernetes.adoption import find_difference
from dynalign_operator.clusters.kubernetes.cluster import ForeignObjectError, KubeCluster
from dynalign_operator.clusters.kubernetes.store import Store
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning.bundles import build_bundle
from dynalign_operator.planning.observed import Observed, Step
from dynalign_operator.planning.plan import JobBundle
from support.builders import a_run
from support.recording_api import RecordingApi, recording_api
from support.simulation import Simulation

Object = dict[str, Any]
RUN = a_run().stored().with_spec(training={"nodes": 2}, storage={"size": "1Gi", "storageClassName": "fast"}).build()


def bundle_of(stage: Stage, iteration: int | None = None) -> JobBundle:
    """What the planner creates for a stage."""
    simulation = Simulation(RUN)
    if stage is Stage.FETCH:
        (bundle,) = simulation.plan().create
        return bundle
    simulation.until(stage, iteration)
    step = Step(stage, iteration)
    status, observed = simulation.run.status, Observed(simulation.run)
    return build_bundle(observed, status, step, 1, BuildSettings())


def path_of(thing: Object) -> str:
    plurals = {"ConfigMap": "configmaps", "Service": "services", "PersistentVolumeClaim": "persistentvolumeclaims"}
    api, plural = ("/apis/batch/v1", "jobs") if thing["kind"] == "Job" else ("/api/v1", plurals[thing["kind"]])
    return f"{api}/namespaces/team/{plural}/{thing['metadata']['name']}"


def create(folder: Path, bundle: JobBundle, *there: Object) -> RecordingApi:
    """Create a bundle where these objects are already."""

    async def story() -> RecordingApi:
        async with recording_api(folder, [(path_of(thing), thing) for thing in there]) as (server, client):
            await KubeCluster(client, Store(), {}).create(bundle)
            return server

    return asyncio.run(story())


def changed(manifest: Object | None, **fields: Any) -> Object:
    assert manifest is not None
    found = deepcopy(manifest)
    for name, value in fields.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) and name == "spec" else value
    return found


def test_what_an_earlier_attempt_has_made_is_taken(tmp_path: Path) -> None:
    bundle = bundle_of(Stage.TRAIN, 0)
    there = [thing for thing in (bundle.volume_claim, bundle.service, bundle.config_map) if thing is not None]
    assert len(there) == 3
    server = create(tmp_path, bundle, *deepcopy(there))
    for thing in there:
        found = server.objects[path_of(thing)]
        assert (found.get("spec"), found.get("data")) == (thing.get("spec"), thing.get("data"))
    assert path_of(bundle.job) in server.objects


def test_a_config_map_with_other_contents_is_made_anew_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundle_of(Stage.FETCH)
    forged = changed(bundle.config_map, data={"stage.json": '{"uri": "hf://evil/model"}'})
    with caplog.at_level(logging.WARNING):
        server = create(tmp_path, bundle, forged)
    assert bundle.config_map is not None
    assert server.objects[path_of(forged)]["data"] == bundle.config_map["data"]
    assert "r-fetch-a1 held something else in data" in caplog.text


def test_a_config_map_that_a_job_may_have_mounted_is_not_taken_away(tmp_path: Path) -> None:
    bundle = bundle_of(Stage.FETCH)
    forged = changed(bundle.config_map, binaryData={"stage.json": "e30="})
    with pytest.raises(ForeignObjectError, match="binaryData differs"):
        create(tmp_path, bundle, forged, deepcopy(bundle.job))


OTHER: dict[str, tuple[str, Object]] = {
    "a claim of somebody's snapshot": (
        "volume_claim",
        {"spec": {"dataSource": {"kind": "VolumeSnapshot", "name": "x"}}},
    ),
    "a claim that picks its volume": ("volume_claim", {"spec": {"selector": {"matchLabels": {"a": "b"}}}}),
    "a claim of another class": ("volume_claim", {"spec": {"storageClassName": "slow"}}),
    "a claim for one node": ("volume_claim", {"spec": {"accessModes": ["ReadWriteOnce"]}}),
    "a Service of other pods": ("service", {"spec": {"selector": {"app": "evil"}}}),
    "a Service with an address": ("service", {"spec": {"externalIPs": ["10.0.0.1"]}}),
    "a Service elsewhere": ("service", {"spec": {"type": "ExternalName", "externalName": "evil"}}),
}


@pytest.mark.parametrize(("kind", "change"), OTHER.values(), ids=OTHER.keys())
def test_volumes_and_services_are_refused_with_the_field_and_never_removed(
    kind: str, change: Object, tmp_path: Path
) -> None:
    bundle = bundle_of(Stage.TRAIN, 0)
    forged = changed(getattr(bundle, kind), **change)
    with pytest.raises(ForeignObjectError, match=r"spec\.\w+ differs.*Remove it; the run goes on by itself"):
        create(tmp_path, bundle, forged)


def test_what_a_cluster_adds_by_itself_is_no_difference() -> None:
    bundle = bundle_of(Stage.TRAIN, 0)
    grown = changed(bundle.volume_claim, spec={"resources": {"requests": {"storage": "9Gi"}}, "volumeName": "pv-1"})
    assert bundle.volume_claim is not None
    assert find_difference(bundle.volume_claim, grown) is None
    assert bundle.service is not None
    ports = [{**port, "protocol": "TCP", "targetPort": port["port"]} for port in bundle.service["spec"]["ports"]]
    served = changed(bundle.service, spec={"ports": ports, "type": "ClusterIP", "clusterIPs": ["None"]})
    assert find_difference(bundle.service, served) is None
