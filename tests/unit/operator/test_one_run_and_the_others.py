"""Whatever is in one run: the others go on. Runs, queue, worker, cluster and planner are the real ones."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator import reconcile as reconcile_module
from dynalign_operator.api.status import ConditionType
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.errors import ConflictError
from dynalign_operator.clusters.kubernetes.api import RefusedError
from dynalign_operator.clusters.kubernetes.cluster import KubeCluster
from dynalign_operator.clusters.kubernetes.runs import InvalidRunError
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.metrics import OperatorMetrics
from dynalign_operator.planning.observed import Observed
from dynalign_operator.planning.plan import Plan
from dynalign_operator.planning.planner import Observation, plan
from dynalign_operator.reconcile import InternalFaultError
from dynalign_operator.service.run_worker import RunWorker
from dynalign_operator.service.workqueue import PutOffError, WorkQueue
from support.memory_api import MemoryApi
from support.player import run_object

RUNS = "/apis/dynalign.io/v1alpha1/namespaces/team/alignmentruns"
CONFIG_MAPS = "/api/v1/namespaces/team/configmaps"
BOMB = "a: &a [" + "x, " * 9000 + "x]\nfacets: {b: [" + "*a, " * 10000 + "*a]}\n"
"""70 kB; its aliases, written out, take gigabytes."""
UNKNOWN_PHASE = {"phase": "Hibernating", "fetch": {"stage": "fetch"}, "observedGeneration": 1}


class Operator:
    """The parts of an operator that decide about runs, on an API server in memory."""

    def __init__(self, cluster: type[KubeCluster] = KubeCluster) -> None:
        self.store = Store()
        self.api = MemoryApi(self.store)
        self.metrics = OperatorMetrics()
        self.queue: WorkQueue[RunKey] = WorkQueue()
        self.cluster = cluster(self.api, self.store, {})
        self.worker = RunWorker(self.cluster, self.queue, self.metrics, BuildSettings(trainer_image="t"))

    def add(self, name: str, status: dict[str, Any] | None = None, **spec: object) -> RunKey:
        run = run_object(name, "team", **{"model": {"uri": "bundled://x"}, **spec})
        self.api.seed(RUNS, run if status is None else {**run, "status": status})
        return RunKey("team", name)

    async def work(self, key: RunKey) -> None:
        """One turn at a run; that it is put off, or fails, is its own affair."""
        with contextlib.suppress(PutOffError, InternalFaultError):
            await self.worker.work(key)

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"dynalign_{name}_total", labels) or 0.0


def scenario(story: Callable[[Operator], Awaitable[None]], cluster: type[KubeCluster] = KubeCluster) -> None:
    async def main() -> None:
        await story(Operator(cluster))

    asyncio.run(main())


def planner_that_fails_at(name: str, plan: Callable[..., Plan]) -> Callable[..., Plan]:
    def wrapped(observed: Observation, *rest: Any) -> Plan:
        if isinstance(observed, Observed) and observed.run.metadata.name == name:
            raise KeyError("a fault of ours\nat 0x7f00")
        return plan(observed, *rest)

    return wrapped


def test_a_bomb_a_fault_and_a_status_from_the_future_do_not_hold_the_others_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile_module, "plan", planner_that_fails_at("cursed", plan))

    async def story(operator: Operator) -> None:
        operator.api.seed(CONFIG_MAPS, {"metadata": {"name": "bomb"}, "data": {"objective.yaml": BOMB}})
        keys = [
            operator.add("bomb", objective={"configMapRef": {"name": "bomb"}}),
            operator.add("cursed"),
            operator.add("future", UNKNOWN_PHASE),
            operator.add("healthy"),
        ]
        working = asyncio.create_task(operator.queue.work(operator.worker.work))
        for key in keys:
            operator.queue.add(key)
        while "healthy-fetch-a1" not in operator.api.names("jobs"):
            assert not working.done()
            await asyncio.sleep(0)
        working.cancel()
        assert operator.api.names("jobs") == ["healthy-fetch-a1"]
        stalled = {name: operator.api.conditions(name)["Stalled"] for name in ("bomb", "cursed", "future", "healthy")}
        assert {name: said[:2] for name, said in stalled.items()} == {
            "bomb": ("True", "BadObjective"),
            "cursed": ("True", "InternalError"),
            "future": ("True", "BadConfig"),
            "healthy": ("False", "OnTrack"),
        }
        assert "the text has 67,028 bytes; write at most 65,536" in stalled["bomb"][2]
        assert "failed while planning the next step: KeyError" in stalled["cursed"][2]
        assert "Traceback" not in stalled["cursed"][2]
        assert 'status.phase is "Hibernating"' in stalled["future"][2]

    scenario(story)


def test_a_fault_counts_as_an_error_and_is_over_when_the_planner_is_well_again(monkeypatch: pytest.MonkeyPatch) -> None:
    well = plan

    async def story(operator: Operator) -> None:
        key = operator.add("cursed")
        with monkeypatch.context() as patched:
            patched.setattr(reconcile_module, "plan", planner_that_fails_at("cursed", well))
            for _ in range(3):
                await operator.work(key)
        assert operator.counted("reconcile_errors") == 3
        writes = [path for method, path in operator.api.requests if method == "PATCH"]
        assert len(writes) == 1, "saying it again changes nothing"
        await operator.work(key)
        assert operator.api.conditions("cursed")["Stalled"][1] == "OnTrack"

    scenario(story)


def test_what_another_version_wrote_is_left_as_it_is() -> None:
    async def story(operator: Operator) -> None:
        key = operator.add("future", {**UNKNOWN_PHASE, "mood": "good"})
        for _ in range(2):
            await operator.work(key)
        status = operator.api.run("future")["status"]
        assert {name: value for name, value in status.items() if name != "conditions"} == {
            **UNKNOWN_PHASE,
            "mood": "good",
        }
        assert operator.api.names("jobs") == []

    scenario(story)


def test_fields_that_this_version_does_not_know_are_passed_over() -> None:
    async def story(operator: Operator) -> None:
        artifact = {"path": "model", "digest": "sha256:" + "0" * 64, "signature": "later"}
        fetch = {"stage": "fetch", "phase": "Succeeded", "artifact": artifact, "node": "later"}
        key = operator.add("r", {"phase": "Running", "fetch": fetch, "budget": {"gpuHours": 3}})
        await operator.work(key)
        assert operator.api.names("jobs") == ["r-i000-prompts-a1"]

    scenario(story)


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_this_version_refuses_keeps_its_jobs_and_its_phase_if_it_has_begun(begun: bool) -> None:
    async def story(operator: Operator) -> None:
        key = operator.add("r")
        if begun:
            await operator.work(key)
        spoilt = operator.api.run("r")
        spoilt["spec"]["colour"] = "red"
        operator.api.seed(RUNS, spoilt)
        await operator.work(key)
        assert ("DELETE", "/apis/batch/v1/namespaces/team/jobs/r-fetch-a1") not in operator.api.requests
        status, reason, message = operator.api.conditions("r")["Stalled"]
        assert (status, reason) == ("True", "BadConfig")
        assert "spec.colour is unknown" in message
        assert operator.api.run("r")["status"]["phase"] == ("Pending" if begun else "Failed")
        assert ("Job r-fetch-a1 goes on to its end" in message) is begun

        del spoilt["spec"]["colour"]
        corrected = operator.api.run("r")
        corrected["spec"].pop("colour")
        corrected["metadata"]["generation"] = 2
        operator.api.seed(RUNS, corrected)
        await operator.work(key)
        assert operator.api.conditions("r")["Stalled"][1] == "OnTrack"
        assert operator.api.names("jobs") == ["r-fetch-a1"]

    scenario(story)


class Refusing(KubeCluster):
    """Every creation ends in this error."""

    error: Exception

    async def create(self, bundle: Any) -> None:
        raise self.error


QUOTA = 'jobs.batch "r-fetch-a1" is forbidden: exceeded quota: jobs'
RBAC = 'configmaps is forbidden: User "system:serviceaccount:d:o" cannot create resource "configmaps" in API group ""'


@pytest.mark.parametrize(
    ("error", "reason", "errors", "refusals"),
    [
        (RefusedError("create Job", 403, QUOTA), "Refused", 0, 1),
        (RefusedError("create Job", 422, "spec.template: Invalid value"), "Refused", 0, 1),
        (RefusedError("create Job", 500, "etcdserver: request is too large"), "Refused", 0, 1),
        (RefusedError("create ConfigMap", 403, RBAC), "Refused", 1, 0),
        (RefusedError("create Job", 500, "etcdserver: leader changed"), "OnTrack", 1, 0),
        (RefusedError("create Job", 0, "no answer"), "OnTrack", 1, 0),
        (RuntimeError("never seen"), "InternalError", 1, 0),
    ],
    ids=["quota", "invalid", "too large", "rights", "etcd", "no answer", "a fault"],
)
def test_only_what_no_user_can_mend_counts_as_an_error(
    error: Exception, reason: str, errors: int, refusals: int
) -> None:
    async def story(operator: Operator) -> None:
        Refusing.error = error
        key = operator.add("r")
        with pytest.raises(PutOffError if isinstance(error, RefusedError) else Exception):
            await operator.worker.work(key)
        said = operator.api.conditions("r").get("Stalled", ("", "OnTrack", ""))
        assert said[1] == reason
        assert (operator.counted("reconcile_errors"), operator.counted("reconcile_refusals", reason="Refused")) == (
            errors,
            refusals,
        )
        if "too large" in str(error):
            assert "about 1.5 MiB" in said[2]

    scenario(story, Refusing)


class RefusingWhileFull(KubeCluster):
    """Nothing can be created until the quota is raised."""

    is_full = True

    async def create(self, bundle: Any) -> None:
        if self.is_full:
            raise RefusedError("create Job", 403, QUOTA)
        await super().create(bundle)


def test_a_finished_run_that_is_raised_while_the_quota_is_full_continues_when_it_is_not() -> None:
    async def story(operator: Operator) -> None:
        artifact = {"path": "export", "digest": "sha256:" + "0" * 64}
        done = {"phase": "Succeeded", "artifact": artifact}
        stages = [{"stage": str(stage), **done} for stage in ITERATION_STAGES]
        status = {
            "phase": "Succeeded",
            "observedGeneration": 1,
            "fetch": {"stage": "fetch", **done},
            "iterations": [{"index": 0, "stages": stages, "prompts": artifact, "policy": artifact}],
            "export": {"stage": "export", **done},
        }
        key = operator.add("r", status, iterations=2)
        raised = operator.api.run("r")
        raised["metadata"]["generation"] = 2
        operator.api.seed(RUNS, raised)
        for _ in range(2):
            await operator.work(key)
        assert operator.api.conditions("r")["Stalled"][:2] == ("True", "Refused")
        assert operator.api.conditions("r")["Completed"][0] == "True"
        operator.cluster.is_full = False  # type: ignore[attr-defined]
        await operator.work(key)
        assert operator.api.names("jobs") == ["r-i001-prompts-a1", "r-report-a1"]
        assert operator.api.conditions("r")["Stalled"][1] == "OnTrack"

    scenario(story, RefusingWhileFull)


def test_a_run_that_went_meanwhile_is_forgotten() -> None:
    async def story(operator: Operator) -> None:
        key = operator.add("r")
        stored = operator.api.objects.pop(f"{RUNS}/r")  # the watch has not told yet
        await operator.worker.work(key)
        assert operator.store.get(Kind.RUN, key) is None
        asked = len(operator.api.requests)
        await operator.worker.work(key)
        assert len(operator.api.requests) == asked
        assert stored["metadata"]["name"] == "r"

    scenario(story)


def test_conflicts_come_back_after_pauses_that_grow() -> None:
    async def story(operator: Operator) -> None:
        queue: WorkQueue[str] = WorkQueue()
        pauses: list[float] = []
        queue.add_after = lambda key, seconds: pauses.append(seconds) or queue.add(key)  # type: ignore[method-assign, func-returns-value]

        async def conflict(_: str) -> None:
            if len(pauses) == 6:
                raise asyncio.CancelledError
            raise PutOffError("conflict")

        queue.add("r")
        with pytest.raises(asyncio.CancelledError):
            await queue.work(conflict)
        assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4]

    scenario(story)


class Conflicting(KubeCluster):
    async def write_status(self, run: Any, status: Any) -> None:
        raise ConflictError("somebody was faster")


def test_a_conflict_is_put_off_and_is_no_error() -> None:
    async def story(operator: Operator) -> None:
        key = operator.add("r")
        with pytest.raises(PutOffError):
            await operator.worker.work(key)
        assert operator.counted("reconcile_errors") == 0

    scenario(story, Conflicting)


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Hibernating"},
        {"phase": 3},
        {"stage": "distil"},
        {"conditions": [{"type": "Tired", "status": "True"}]},
        {"iterations": [{"index": -1}]},
        {"iterations": "none"},
        {"fetch": {"stage": "fetch", "attempt": 0}},
    ],
    ids=str,
)
def test_no_stored_status_makes_the_refusal_itself_fail(status: dict[str, Any]) -> None:
    stored = {**run_object("r", "team", model={"uri": "bundled://x"}), "status": status}
    stored["metadata"]["resourceVersion"] = "1"
    assert not InvalidRunError(stored, "wrong").stored.is_status_readable

    async def story(operator: Operator) -> None:
        key = operator.add("r", status)
        await operator.work(key)
        assert operator.api.conditions("r")[ConditionType.STALLED][1] == "BadConfig"

    scenario(story)


def test_finished_runs_are_neither_parsed_again_nor_kept_as_values() -> None:
    async def story(operator: Operator) -> None:
        status = {"phase": "Succeeded", "observedGeneration": 1}
        keys = [operator.add(f"done-{index}", status) for index in range(20)]
        for thing in operator.api.objects.values():
            thing["metadata"]["generation"] = 1
        asked = len(operator.api.requests)
        for key in keys:
            await operator.work(key)
            assert operator.cluster.runs.read(key) is not None
        assert len(operator.api.requests) == asked
        assert operator.cluster.runs.kept == 0
        active = operator.add("active")
        assert operator.cluster.runs.read(active) is operator.cluster.runs.read(active)
        assert operator.cluster.runs.kept == 1

    scenario(story)


class RefusingReports(KubeCluster):
    """The API server takes no Job of a report."""

    async def create(self, bundle: Any) -> None:
        if bundle.step.stage is Stage.REPORT:
            raise RefusedError("create Job", 403, QUOTA)
        await super().create(bundle)


def test_a_report_that_is_refused_is_an_event_and_blocks_nothing() -> None:
    async def story(operator: Operator) -> None:
        artifact = {"path": "export", "digest": "sha256:" + "0" * 64}
        done = {"phase": "Succeeded", "artifact": artifact}
        stages = [{"stage": str(stage), **done} for stage in ITERATION_STAGES]
        status = {
            "phase": "Running",
            "fetch": {"stage": "fetch", **done},
            "iterations": [{"index": 0, "stages": stages, "prompts": artifact, "policy": artifact}],
        }
        key = operator.add("r", status, iterations=2)
        await operator.work(key)
        assert operator.api.names("jobs") == ["r-i001-prompts-a1"]
        assert operator.api.conditions("r")["Stalled"][1] == "OnTrack"
        assert operator.api.run("r")["status"]["report"]["job"] == "r-report-a1", "it is expected, and tried again"

    scenario(story, RefusingReports)
