"""Runs of a cluster as the commands read them: rights, near names, events, logs over cuts; the server is on loopback.

tests/integration/test_terminal_cluster.py has the same commands on a real API server.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes import pod_logs
from dynalign_operator.clusters.kubernetes.run_source import KubeRunSource, open_kube_source
from dynalign_operator.clusters.kubernetes.user_access import KubeChoice, find_kubeconfig
from dynalign_operator.clusters.run_source import LogSelection
from support.builders import a_run
from support.log_api import LogApi, ended, log_api, running
from support.simulation import Simulation, succeed

RUNS = "/apis/dynalign.io/v1alpha1/namespaces/{}/alignmentruns"
Story = Callable[[LogApi, KubeRunSource], Awaitable[None]]


def with_cluster(folder: Path, story: Story, *, everywhere: bool = False) -> None:
    """Run a story with a server and a source whose namespace is `team`."""

    async def main() -> None:
        async with (
            log_api(folder) as (api, kubeconfig),
            open_kube_source(KubeChoice("team", kubeconfig=kubeconfig), everywhere=everywhere) as source,
        ):
            await story(api, source)

    asyncio.run(main())


def at_judge() -> Simulation:
    """A run with two shards whose judge Job of iteration 0 has just been created."""
    return Simulation(a_run().stored().with_shards(2).build()).until(Stage.JUDGE, 0)


async def error_of(work: Awaitable[object]) -> str:
    with pytest.raises(ClusterError) as caught:
        await work
    return str(caught.value)


def test_a_run_comes_with_the_jobs_that_it_owns_and_their_pods(tmp_path: Path) -> None:
    simulation = at_judge()

    async def story(api: LogApi, source: KubeRunSource) -> None:
        api.put_run(simulation.run)
        api.put_job(simulation.created[-1], 3, running(), {"waiting": {"reason": "ImagePullBackOff", "message": "x"}})
        foreign = {"metadata": {"name": "foreign", "labels": simulation.created[-1].job["metadata"]["labels"]}}
        api.put("/apis/batch/v1/namespaces/team/jobs/foreign", foreign)
        snapshot = await source.get("r")
        assert snapshot.run == simulation.run
        assert [(job.name, job.reason) for job in snapshot.jobs] == [("r-i000-judge-a1", "ImagePullBackOff")]
        assert snapshot.place.title == "namespace team, context x"
        assert snapshot.place.arguments == "r -n team"

    with_cluster(tmp_path, story)


def test_what_may_not_be_read_is_a_note_and_what_must_be_is_an_error(tmp_path: Path) -> None:
    async def story(api: LogApi, source: KubeRunSource) -> None:
        api.put_run(at_judge().run)
        api.refused["/apis/batch/v1/namespaces/team/jobs"] = 403
        snapshot = await source.get("r")
        assert snapshot.jobs == ()
        assert "you may not list jobs in namespace team (the cluster of context x)" in snapshot.notes[0]
        api.refused[RUNS.format("team") + "/r"] = 401
        assert "does not accept your credentials" in await error_of(source.get("r"))
        api.refused[RUNS.format("team") + "/r"] = 503
        assert "cannot get alignmentruns in namespace team at present (503)" in await error_of(source.get("r"))

    with_cluster(tmp_path, story)


def test_a_run_that_is_not_there_has_near_names_and_other_namespaces(tmp_path: Path) -> None:
    async def story(api: LogApi, source: KubeRunSource) -> None:
        for name in ("ca-qwen", "ca-llama"):
            api.put_run(a_run().named(name).stored().build())
        assert await error_of(source.get("ca-qwn")) == "there is no run ca-qwn in namespace team; it has ca-qwen."
        run = a_run().named("far").stored().build()
        api.put_run(run.model_copy(update={"metadata": run.metadata.model_copy(update={"namespace": "ml"})}))
        assert (await error_of(source.get("far"))).endswith("Namespace ml has one: -n ml.")

    with_cluster(tmp_path, story)


def test_the_runs_of_all_namespaces_or_else_of_one(tmp_path: Path) -> None:
    async def story(api: LogApi, source: KubeRunSource) -> None:
        api.put_run(at_judge().run)
        assert [(run.name, run.group) for run in (await source.list_runs()).runs] == [("r", "team")]
        api.refused["/apis/dynalign.io/v1alpha1/alignmentruns"] = 403
        found = await source.list_runs()
        assert [run.name for run in found.runs] == ["r"]
        assert found.notes == ("you may not list the runs of all namespaces; these are those of team.",)
        api.refused["/apis/dynalign.io/v1alpha1/alignmentruns"] = 404
        assert "dynalign is not installed in it" in await error_of(source.list_runs())

    with_cluster(tmp_path, story, everywhere=True)


def test_an_object_that_is_no_run_has_a_line_of_its_own(tmp_path: Path) -> None:
    async def story(api: LogApi, source: KubeRunSource) -> None:
        api.put_run(at_judge().run)
        api.objects[RUNS.format("team") + "/r"]["spec"]["iterations"] = -1
        (found,) = (await source.list_runs()).runs
        assert found.run is None
        assert "spec.iterations" in found.problem
        assert "spec.iterations" in await error_of(source.get("r"))

    with_cluster(tmp_path, story, everywhere=True)


def test_events_are_those_of_the_run_its_latest_job_and_its_claim_while_that_waits(tmp_path: Path) -> None:
    simulation = at_judge()
    uid = simulation.run.metadata.uid

    def event(name: str, reason: str, second: int, **more: object) -> dict[str, object]:
        about = {"kind": "Job" if "-" in name else "AlignmentRun", "name": name, **more}
        time = f"2026-01-01T00:00:{second:02d}Z"
        return {"metadata": {}, "involvedObject": about, "reason": reason, "message": "m", "lastTimestamp": time}

    async def story(api: LogApi, source: KubeRunSource) -> None:
        api.put_run(simulation.run)
        api.put_job(simulation.created[-1], 3)
        api.events = [
            event("r-i000-judge-a1", "FailedCreate", 9),
            event("r", "StageStarted", 5, uid=uid),
            event("r", "OfAnEarlierRun", 1, uid="other"),
            event("r", "ProvisioningFailed", 7, kind="PersistentVolumeClaim"),
        ]
        found = await source.events(await source.get("r"))
        assert [(e.reason, e.job) for e in found] == [
            ("StageStarted", ""),
            ("ProvisioningFailed", ""),
            ("FailedCreate", "r-i000-judge-a1"),
        ]

    with_cluster(tmp_path, story)


def test_logs_are_those_of_all_shards_of_the_latest_attempt(tmp_path: Path) -> None:
    simulation = at_judge()
    generate, judge = simulation.created[-2:]

    async def story(api: LogApi, source: KubeRunSource) -> None:
        api.put_run(simulation.run)
        api.put_job(generate, 2, ended(), ended())
        api.put_job(judge, 3, running(), running())
        api.logs = {f"{judge.name}-0": [["a", "b"]], f"{judge.name}-1": [["c"]], f"{generate.name}-0": [["old"]]}
        lines = [line async for line in source.logs("r", LogSelection(), tail=1)]
        assert [(line.origin.index, line.text) for line in lines] == [(0, "b"), (1, "c")]
        old = [line.text async for line in source.logs("r", LogSelection(stage=Stage.GENERATE))]
        assert old == ["old"]

        async def none() -> list[str]:
            return [line.text async for line in source.logs("r", LogSelection(stage=Stage.EXPORT))]

        assert "it has those of generate of iteration 0, attempt 1; judge of iteration 0" in await error_of(none())

    with_cluster(tmp_path, story)


def test_following_brings_every_line_once_over_cuts_and_the_next_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is cut twice; then the next Job comes, and with it the end of the run."""
    monkeypatch.setattr(pod_logs, "LOOK_EVERY_SECONDS", 0.01)
    simulation = at_judge()
    generate, judge = simulation.created[-2:]
    finished = Simulation(a_run().stored().with_shards(2).build()).finish(succeed).run

    async def story(api: LogApi, source: KubeRunSource) -> None:
        api.put_run(simulation.run)
        api.put_job(generate, 2, running(), running())
        api.logs = {
            f"{generate.name}-0": [["a"], ["b"], ["c"]],
            f"{generate.name}-1": [["d"]],
            f"{judge.name}-0": [["e"]],
            f"{judge.name}-1": [[]],
        }
        lines = []
        async for line in source.logs("r", LogSelection(), follow=True):
            lines.append(f"{line.origin.step.stage}/{line.origin.index} {line.text}")
            if len(lines) == 4:
                api.put_job(generate, 2, ended(), ended())
                api.put_job(judge, 3, ended(), ended())
                api.put_run(finished)
        assert sorted(lines) == ["generate/0 a", "generate/0 b", "generate/0 c", "generate/1 d", "judge/0 e"]
        assert lines.index("generate/0 a") < lines.index("generate/0 b") < lines.index("generate/0 c")

    with_cluster(tmp_path, story)


@pytest.mark.parametrize(
    ("text", "choice", "message"),
    [
        ("current-context: x\n", KubeChoice(), "has no context x; it has none."),
        ("contexts: [{name: a, context: {}}]\n", KubeChoice(), "has no current context; choose one with --context"),
        ("contexts: [{name: a, context: {}}]\n", KubeChoice(context="b"), "has no context b; it has a."),
        ("- no\n- kubeconfig\n", KubeChoice(), "cannot be read"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, choice: KubeChoice, message: str
) -> None:
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))

    async def connect() -> None:
        async with open_kube_source(choice):
            pass

    assert message in asyncio.run(error_of(connect()))


def test_kubeconfig_may_name_several_files_of_which_one_is_there(tmp_path: Path) -> None:
    (tmp_path / "config").touch()
    named = f"{tmp_path}/none:{tmp_path}/config"
    assert find_kubeconfig(KubeChoice(), {"KUBECONFIG": named}) == named
    with pytest.raises(ClusterError, match="which does not exist"):
        find_kubeconfig(KubeChoice(), {"KUBECONFIG": f"{tmp_path}/none"})
