"""How notifications reach the status: of a run in a cluster that has ended, and of one on this machine."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from dynalign_contract.references import SecretKeyRef
from dynalign_contract.stages import Stage
from dynalign_operator.api.notifications import Notification, NotificationOutcome
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.cli.drive import store_notifications
from dynalign_operator.cli.load import load_run_file, require_keys
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.deliveries import Deliveries
from dynalign_operator.clusters.kubernetes.cluster import KubeCluster
from dynalign_operator.clusters.kubernetes.store import Store
from dynalign_operator.clusters.local.cluster import open_local_cluster
from dynalign_operator.manifests.secrets import may_hold_secret, notify_variable, secret_variables
from dynalign_operator.notifying.local import open_local_notifier
from dynalign_operator.planning.notifications import due_notifications
from dynalign_operator.reconcile import reconcile
from dynalign_operator.runfile.run_file import RunFileError
from support.builders import T0, a_run
from support.memory_api import MemoryApi
from support.simulation import SETTINGS, Simulation, succeed
from support.webhooks import Receiver, accept, serve_receiver

KEY = RunKey("team", "r")
SECRET = {"name": "hook", "key": "key"}
SIGNING_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def an_ended_run(url: str = "https://hooks.example.com/x") -> AlignmentRun:
    notify = [{"url": url, "secretRef": SECRET}]
    return Simulation(a_run().with_iterations(1).with_spec(notify=notify).stored().build()).finish(succeed).run


def stored(run: AlignmentRun) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.to_json())
    found["spec"] = run.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def test_a_run_that_has_ended_is_written_once_more_and_then_rests() -> None:
    api = MemoryApi(Store())
    run = an_ended_run()
    api.seed("/apis/dynalign.io/v1alpha1/namespaces/team/alignmentruns", stored(run))
    cluster = KubeCluster(api, api.store, {})
    assert asyncio.run(cluster.observe(KEY)) is None
    found = cluster.notifying_run(KEY)
    assert found is not None
    (due,) = due_notifications(found)
    over = Notification(id=due.id, event=due.occurrence.event, outcome=NotificationOutcome.DELIVERED, time=T0)
    cluster.deliveries.add(KEY, over)
    asyncio.run(reconcile(cluster, KEY, T0, SETTINGS))
    after = cluster.notifying_run(KEY)
    assert after is not None
    assert after.status == found.status.evolve(notifications=(over,))
    writes = len([request for request in api.requests if request[0] == "PATCH"])
    asyncio.run(reconcile(cluster, KEY, T0, SETTINGS))
    assert len([request for request in api.requests if request[0] == "PATCH"]) == writes
    assert asyncio.run(cluster.observe(KEY)) is None, "nothing is left to store"


def test_a_run_without_webhooks_is_never_parsed_for_them() -> None:
    api = MemoryApi(Store())
    api.seed("/apis/dynalign.io/v1alpha1/namespaces/team/alignmentruns", stored(a_run().stored().build()))
    assert KubeCluster(api, api.store, {}).notifying_run(KEY) is None


def test_a_key_is_read_from_the_secret_of_the_runs_namespace() -> None:
    api = MemoryApi(Store())
    data = {"key": base64.b64encode(b"0123456789abcdef").decode()}
    api.seed("/api/v1/namespaces/team/secrets", {"metadata": {"name": "hook", "namespace": "team"}, "data": data})
    cluster = KubeCluster(api, api.store, {})
    assert asyncio.run(cluster.read_secret("team", SecretKeyRef(**SECRET))) == "0123456789abcdef"
    assert asyncio.run(cluster.read_secret("team", SecretKeyRef(name="hook", key="other"))) is None
    assert asyncio.run(cluster.read_secret("other", SecretKeyRef(**SECRET))) is None


@contextmanager
def receiver_in_a_thread() -> Iterator[Receiver]:
    """A server beside a test that blocks, as `dynalign run` does."""
    ready, done = threading.Event(), threading.Event()
    found: list[Receiver] = []

    async def serve() -> None:
        async with serve_receiver(accept) as receiver:
            found.append(receiver)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        yield found[0]
    finally:
        done.set()
        thread.join()


def test_a_run_of_this_machine_tells_its_end_before_the_command_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notify_variable(0), SIGNING_KEY)
    deliveries = Deliveries()
    with receiver_in_a_thread() as receiver:
        run = an_ended_run(receiver.url)
        with open_local_notifier(KEY, lambda: run, deliveries) as notify:
            notify()
    ((headers, body),) = receiver.received
    assert Webhook(SIGNING_KEY).verify(body, headers)
    (entry,) = deliveries.take(KEY, ())
    assert (entry.id, entry.outcome) == (headers["webhook-id"], NotificationOutcome.DELIVERED)


def test_what_is_over_is_stored_in_the_working_folder(tmp_path: Any) -> None:
    wanted = an_ended_run()
    with open_local_cluster(tmp_path / "r", wanted, cache=tmp_path / "cache", clock=lambda: T0) as cluster:
        asyncio.run(cluster.write_status(cluster.run, wanted.status))
        (due,) = due_notifications(cluster.run)
        over = Notification(id=due.id, event=due.occurrence.event, outcome=NotificationOutcome.DELIVERED, time=T0)
        cluster.deliveries.add(cluster.key, over)
        asyncio.run(store_notifications(cluster))
        assert cluster.run.status.notifications == (over,)
        assert due_notifications(cluster.run) == ()


def test_the_key_is_asked_for_before_the_run_and_no_stage_sees_it(tmp_path: Any) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "apiVersion: dynalign.io/v1alpha1\nkind: AlignmentRun\nmetadata: {name: r}\nspec:\n"
        "  model: {uri: 'bundled://smollm2-135m-instruct'}\n"
        "  notify:\n  - {url: 'http://127.0.0.1:8000/x', secretRef: {name: hook, key: key}}\n"
    )
    loaded = load_run_file(file)
    with pytest.raises(RunFileError, match=notify_variable(0)):
        require_keys(loaded, {})
    assert require_keys(loaded, {notify_variable(0): SIGNING_KEY}) is loaded
    for stage in Stage:
        assert notify_variable(0) not in {s.variable for s in secret_variables(loaded.run, stage)}
    assert may_hold_secret(notify_variable(0)), "so it is taken out of every stage's environment"
