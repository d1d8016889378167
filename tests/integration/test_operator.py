"""The operator against a real API server, etcd and Job controller; the test plays the kubelet."""

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from dynalign_contract.stages import ITERATION_STAGES, SIDE_STAGES, Stage
from dynalign_operator.manifests.labels import STAGE
from lab.api_server import PATIENCE, ApiServer, start_api_server
from support.player import Player, is_completed, run_object, scenario, start_operator

pytestmark = pytest.mark.cluster

RUN = run_object(model={"uri": "bundled://smollm2-135m-instruct"}, iterations=2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with start_api_server(tmp_path_factory.mktemp("api-server") / "s") as started:
        yield started


def is_reported(status: dict[str, Any]) -> bool:
    """Whether the report of the run's end has been written."""
    report = status.get("report", {})
    return report.get("phase") == "Succeeded" and "runCompletionTime" in report


def test_a_run_to_its_end_and_on(server: ApiServer) -> None:
    async def story(player: Player) -> None:
        await player.create(RUN)
        run = await player.until(is_completed, "completion")
        reported = (await player.until(is_reported, "the report of the end"))["status"]["report"]
        assert reported["runCompletionTime"] == run["status"]["completionTime"], (
            "a run that has ended is still looked at"
        )
        jobs = [job for job in await player.jobs() if job["metadata"]["labels"][STAGE] not in SIDE_STAGES]
        assert len(jobs) == 2 + 2 * len(ITERATION_STAGES)
        assert len({job["metadata"]["name"] for job in jobs}) == len(jobs)
        selector = f"dynalign.io/run=r,{STAGE}!={Stage.REPORT}"
        texts = json.loads(server.kubectl("get", "configmaps", "-l", selector, "-o", "json").stdout)["items"]
        owners = {text["metadata"]["name"]: [o["uid"] for o in text["metadata"]["ownerReferences"]] for text in texts}
        assert owners == {job["metadata"]["name"]: [job["metadata"]["uid"]] for job in jobs}, "they go with their Jobs"
        assert run["status"]["phase"] == "Succeeded"
        assert run["metadata"].get("finalizers") is None
        assert not any("kopf" in name for name in run["metadata"].get("annotations") or {})
        columns = server.kubectl("get", "ar", "r").stdout.splitlines()
        assert columns[0].split() == ["NAME", "PHASE", "ITERATION", "STAGE", "PROGRESS", "REWARD", "WINRATE", "AGE"]
        assert columns[1].split()[:2] == ["r", "Succeeded"]
        assert "0.5" in columns[1]
        assert "0.6" in columns[1]
        heads, wide = (line.split() for line in server.kubectl("get", "ar", "r", "-o", "wide").stdout.splitlines())
        assert heads[-3:-1] == ["CAPABILITYDELTA", "GOODPUT"]
        assert "-0.012" in wide[-3:]
        assert run["status"]["iterations"][0]["capabilityDelta"]["value"] == -0.0123456789

        grown = server.kubectl("patch", "ar", "r", "--type=merge", "-p", '{"spec":{"iterations":3}}')
        assert grown.returncode == 0, grown.stderr
        await player.until(lambda s: is_completed(s) and len(s["iterations"]) == 3, "the third iteration")
        events = server.kubectl("get", "events", "--field-selector=involvedObject.name=r").stdout
        assert "StageSucceeded" in events
        assert "RunSucceeded" in events

    with start_operator(server):
        scenario(server, story)


def test_a_fused_rollout_with_shards(server: ApiServer) -> None:
    """One Indexed Job in the place of three, and a status as if there had been three."""
    spec = {**RUN["spec"], "iterations": 1, "rollout": "Fused", "generation": {"shards": 2}}

    async def story(player: Player) -> None:
        await player.create({**RUN, "spec": spec})
        status = (await player.until(is_completed, "completion"))["status"]
        jobs = {job["metadata"]["labels"][STAGE]: job for job in await player.jobs()}
        assert set(jobs) - SIDE_STAGES == {"fetch", "rollout", "train", "evaluate", "export"}
        assert jobs["rollout"]["spec"]["completions"] == jobs["rollout"]["spec"]["parallelism"] == 2
        stages = {entry["stage"]: entry for entry in status["iterations"][0]["stages"]}
        assert list(stages) == ["rollout", *ITERATION_STAGES]
        assert {entry["phase"] for entry in stages.values()} == {"Succeeded"}
        assert [stages[stage]["artifact"].get("shards", 1) for stage in ("prompts", "generate", "judge")] == [1, 2, 2]
        assert status["iterations"][0]["reward"] == 0.5
        assert stages["judge"]["job"] == jobs["rollout"]["metadata"]["name"]

    with start_operator(server):
        scenario(server, story)


def test_a_run_that_was_begun_under_another_default_keeps_its_jobs(server: ApiServer) -> None:
    """A default is stored with the run; where the field is missing, the server fills in that of today."""
    silent = {name: value for name, value in RUN["spec"].items() if name != "rollout"}

    def set_default(value: str) -> None:
        place = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/rollout/default"
        patch_object(server, "crd", "alignmentruns.dynalign.io", {"op": "replace", "path": place, "value": value})
        probe = json.dumps({**RUN, "spec": silent, "metadata": {"name": "probe"}})
        end = time.monotonic() + PATIENCE
        while f'"rollout": "{value}"' not in server.kubectl(
            "create", "--dry-run=server", "-o", "json", "-f", "-", text=probe
        ).stdout.replace('":"', '": "'):
            assert time.monotonic() < end, f"the default {value} was never served"
            time.sleep(0.1)  # between two looks at it

    async def story(player: Player) -> None:
        set_default("Separate")
        try:
            await player.create({**RUN, "spec": silent})
            await player.until(lambda s: s.get("stage") == "generate", "the second step")
        finally:
            set_default("Auto")
        run = await player.until(bool, "its status")
        assert run["spec"]["rollout"] == "Separate"
        patch_object(server, "ar", "r", {"op": "remove", "path": "/spec/rollout"})
        run = await player.until(is_completed, "completion")
        assert run["spec"]["rollout"] == "Auto"
        stages = {job["metadata"]["labels"][STAGE] for job in await player.jobs()} - SIDE_STAGES
        assert stages == {"fetch", *ITERATION_STAGES, "export"}

    with start_operator(server):
        scenario(server, story)


def patch_object(server: ApiServer, kind: str, name: str, operation: dict[str, str]) -> None:
    patched = server.kubectl("patch", kind, name, "--type=json", "-p", json.dumps([operation]))
    assert patched.returncode == 0, patched.stderr


def test_an_operator_killed_at_every_edge_makes_no_job_twice(server: ApiServer) -> None:
    async def story(player: Player) -> None:
        await player.create(RUN)
        seen: list[tuple[str | None, int | None]] = []
        status: dict[str, Any] = {}
        while not is_completed(status):
            with start_operator(server):
                now = (status.get("stage"), status.get("iteration"))

                def moved(new: dict[str, Any], now: tuple[str | None, int | None] = now) -> bool:
                    return bool(new) and ((new.get("stage"), new.get("iteration")) != now or is_completed(new))

                status = (await player.until(moved, f"a step after {now}"))["status"]
            seen.append((status.get("stage"), status.get("iteration")))
        jobs = await player.jobs()
        names = [job["metadata"]["name"] for job in jobs if job["metadata"]["labels"][STAGE] not in SIDE_STAGES]
        assert sorted(names) == sorted(
            ["r-fetch-a1", "r-export-a1", *(f"r-i{i:03d}-{s}-a1" for i in range(2) for s in ITERATION_STAGES)]
        )
        assert len(seen) >= 3

    scenario(server, story)


def test_a_name_that_is_taken_is_said_and_freed_again(server: ApiServer) -> None:
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "r-fetch-a1", "namespace": "default"}}

    def stalled(status: dict[str, Any]) -> dict[str, Any]:
        return next((c for c in status.get("conditions", ()) if c["type"] == "Stalled"), {})

    async def story(player: Player) -> None:
        assert server.apply(foreign).returncode == 0
        await player.create(RUN)
        run = await player.until(lambda s: stalled(s).get("status") == "True", "the stall")
        assert stalled(run["status"])["reason"] == "NameTaken"
        assert "ConfigMap r-fetch-a1 already in namespace default" in stalled(run["status"])["message"]
        server.kubectl("delete", "configmap", "r-fetch-a1")
        run = await player.until(lambda s: s.get("stage") == "generate", "the second step")
        assert stalled(run["status"])["status"] == "False"

    with start_operator(server):
        scenario(server, story)


def test_bad_input_is_final_and_says_why(server: ApiServer) -> None:
    async def story(player: Player) -> None:
        await player.create(RUN)
        run = await player.until(lambda s: s.get("phase") == "Failed", "the failure")
        stalled = next(c for c in run["status"]["conditions"] if c["type"] == "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "BadInput")
        assert len(await player.jobs()) == 1

    with start_operator(server):
        scenario(server, story, lambda _: (11, ""))


def test_suspend_deletes_the_job_and_resume_goes_on(server: ApiServer) -> None:
    async def story(player: Player) -> None:
        player.rests = True
        await player.create(RUN)
        await player.until(lambda s: s.get("stage") == "fetch" and s["fetch"]["job"] != "", "the first Job")
        server.kubectl("patch", "ar", "r", "--type=merge", "-p", '{"spec":{"suspend":true}}')
        player.rests = False
        await player.until(lambda s: s.get("phase") == "Suspended", "the suspension")
        server.kubectl("patch", "ar", "r", "--type=merge", "-p", '{"spec":{"suspend":false}}')
        await player.until(is_completed, "completion")

    with start_operator(server):
        scenario(server, story)


def test_probes_metrics_and_a_graceful_end(server: ApiServer) -> None:
    port = 19464

    async def story(player: Player) -> None:
        await player.create(RUN)
        await player.until(is_completed, "completion")
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        assert 'dynalign_run_progress_ratio{namespace="default",run="r"} 1.0' in text
        assert 'dynalign_run_win_rate{namespace="default",run="r"} 0.6' in text

    with start_operator(server, DYNALIGN_METRICS_PORT=str(port)) as process:
        scenario(server, story)
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        assert "dynalign_run_progress_ratio{" not in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0
