"""LocalCluster with real processes: ends, signals, orphans, locks, logs."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.api.rules import TRANSITIONS
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.errors import (
    ChangedFieldError,
    ClusterError,
    ConflictError,
    LockedError,
    UnsupportedJobError,
    WorkdirError,
)
from dynalign_operator.clusters.local.cluster import LocalCluster, open_local_cluster
from dynalign_operator.clusters.local.workdir import Workdir, read_run
from dynalign_operator.planning.observed import DISRUPTED, JobObservation, JobPhase
from dynalign_operator.planning.plan import Event, EventType, JobBundle
from support.builders import RunBuilder, a_result, a_run
from support.simulation import Simulation

PATIENCE = 60.0
"""Seconds after which something that has to happen counts as not having happened."""


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}: did not happen within {PATIENCE} s"
        time.sleep(0.02)  # between two looks at a condition


def running(code: str, *, run: RunBuilder | None = None, grace: int = 30) -> JobBundle:
    """A bundle as the planner makes it, whose container runs Python code instead of a stage.

    The code finds the paths of the pod in `ARGS`, as the stage would.
    """
    stage, iteration = (Stage.FETCH, None) if run is None else (Stage.JUDGE, 0)
    bundle = Simulation((run or a_run()).build()).until(stage, iteration).created[-1]
    job = copy.deepcopy(bundle.job)
    pod = job["spec"]["template"]["spec"]
    prelude = "import os, signal, sys, time, pathlib; ARGS = dict(a[2:].split('=', 1) for a in sys.argv[1:])\n"
    pod["containers"][0]["command"] = [sys.executable, "-c", prelude + textwrap.dedent(code)]
    pod["terminationGracePeriodSeconds"] = grace
    return replace(bundle, job=job)


@contextmanager
def cluster(folder: Path, run: RunBuilder | None = None) -> Iterator[LocalCluster]:
    with open_local_cluster(folder, (run or a_run()).build(), cache=folder.parent / "cache") as opened:
        yield opened


def only_job(opened: LocalCluster) -> JobObservation:
    observed = asyncio.run(opened.observe(opened.key))
    assert observed is not None
    (job,) = observed.jobs
    return job


def has_ended(opened: LocalCluster) -> bool:
    opened.wait(0.05)
    return only_job(opened).phase is not JobPhase.ACTIVE


def run_to_end(opened: LocalCluster, bundle: JobBundle) -> JobObservation:
    asyncio.run(opened.create(bundle))
    until(lambda: has_ended(opened), f"the end of {bundle.name}")
    return only_job(opened)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("code", "phase", "exit_code"),
    [
        ("sys.exit(0)", JobPhase.SUCCEEDED, 0),
        ("sys.exit(12)", JobPhase.FAILED, 12),
        ("os.kill(os.getpid(), signal.SIGKILL)", JobPhase.FAILED, 137),
    ],
)
def test_how_a_job_ends(workdir: Path, code: str, phase: JobPhase, exit_code: int) -> None:
    with cluster(workdir) as opened:
        job = run_to_end(opened, running(code))
    assert (job.phase, job.exit_code, job.reason) == (phase, exit_code, "")


def test_config_result_and_log_are_where_the_pod_would_have_them(workdir: Path) -> None:
    result = a_result(reward=0.5)
    code = f"""
        print("hello from", pathlib.Path(ARGS["config"]).read_text()[:1])
        pathlib.Path(ARGS["root"], "model").mkdir()
        pathlib.Path(ARGS["result"]).write_text({result.encode().decode()!r})
    """
    with cluster(workdir) as opened:
        job = run_to_end(opened, running(code))
        log = opened.log_path(job.name)
    assert job.results == (result,)
    assert log.read_text() == "hello from {\n"
    assert (workdir / "model").is_dir()


def test_shards_run_one_after_another_and_each_restarts_alone(workdir: Path) -> None:
    code = """
        index = os.environ["JOB_COMPLETION_INDEX"]
        tries = pathlib.Path(ARGS["root"], f"tries-{index}")
        tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
        print("shard", index)
        sys.exit(1 if index == "1" and len(tries.read_text()) < 3 else 0)
    """
    with cluster(workdir) as opened:
        job = run_to_end(opened, running(code, run=a_run().with_shards(3)))
        logs = [opened.log_path(job.name, index, 3).read_text() for index in range(3)]
    assert job.phase is JobPhase.SUCCEEDED
    assert len(job.results) == 3
    assert logs == ["shard 0\n", "shard 1\n" * 3, "shard 2\n"]


@pytest.mark.parametrize(("code", "tries"), [(1, 3), (11, 1)])
def test_a_shard_that_fails_for_good_ends_the_job(workdir: Path, code: int, tries: int) -> None:
    bundle = running(f"print('try'); sys.exit({code})", run=a_run().with_shards(2).with_policy(retries=2))
    with cluster(workdir) as opened:
        job = run_to_end(opened, bundle)
        log = opened.log_path(job.name, 0, 2)
    assert (job.phase, job.exit_code) == (JobPhase.FAILED, code)
    assert log.read_text() == "try\n" * tries


POLITE = """
    signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(143)))
    print("ready", flush=True)
    time.sleep(600)
"""
DEAF = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(600)
"""
WITH_CHILD = """
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("ready", child.pid, flush=True)
    time.sleep(600)
"""


def is_ready(opened: LocalCluster, name: str) -> bool:
    log = opened.log_path(name)
    return log.exists() and "ready" in log.read_text()


@pytest.mark.parametrize(("code", "grace"), [(POLITE, 60), (DEAF, 0)])
def test_a_deleted_job_is_gone_after_its_grace(workdir: Path, code: str, grace: int) -> None:
    bundle = running(code, grace=grace)
    with cluster(workdir) as opened:
        asyncio.run(opened.create(bundle))
        until(lambda: is_ready(opened, bundle.name), "the start")
        asyncio.run(opened.delete(opened.key, bundle.name))
        observed = asyncio.run(opened.observe(opened.key))
        assert observed is None or all(job.deleting for job in observed.jobs)

        def gone() -> bool:
            opened.wait(0.05)
            seen = asyncio.run(opened.observe(opened.key))
            return seen is not None and not seen.jobs

        until(gone, "the end of the deleted Job")
        assert ("saved" in opened.log_path(bundle.name).read_text()) is (code is POLITE)


@pytest.mark.parametrize(("code", "grace"), [(POLITE, 60), (DEAF, 0), (WITH_CHILD, 60)])
def test_closing_stops_the_job_which_counts_as_disrupted(workdir: Path, code: str, grace: int) -> None:
    bundle = running(code, grace=grace)
    with cluster(workdir) as opened:
        asyncio.run(opened.create(bundle))
        until(lambda: is_ready(opened, bundle.name), "the start")
    assert marked_processes(workdir) == []
    with cluster(workdir) as again:
        assert (only_job(again).phase, only_job(again).reason) == (JobPhase.FAILED, DISRUPTED)


def marked_processes(workdir: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DYNALIGN_WORKDIR") == str(workdir) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_what_a_killed_dynalign_left_running_is_ended(workdir: Path) -> None:
    program = f"""
import asyncio, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
import test_local_cluster as t
with t.cluster(Path({str(workdir)!r})) as opened:
    asyncio.run(opened.create(t.running(t.WITH_CHILD)))
    opened.wait(600)
"""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    dynalign = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path})
    log = workdir / "logs" / "r-fetch-a1.log"
    until(lambda: dynalign.poll() is not None or (log.exists() and "ready" in log.read_text()), "the start")
    with pytest.raises(LockedError, match=rf"process {dynalign.pid}\b"), cluster(workdir):
        pass
    dynalign.kill()
    dynalign.wait()
    assert len(marked_processes(workdir)) == 2
    with cluster(workdir) as opened:
        assert marked_processes(workdir) == []
        job = only_job(opened)
        assert (job.phase, job.reason) == (JobPhase.FAILED, DISRUPTED)
        assert "killed" in job.message


def test_finished_jobs_are_known_to_the_next_dynalign(workdir: Path) -> None:
    with cluster(workdir) as opened:
        before = run_to_end(opened, running("sys.exit(7)"))
    with cluster(workdir) as again:
        assert only_job(again) == before
        asyncio.run(again.create(running("print('twice')")))
        assert only_job(again) == before


def test_progress_is_read_from_the_running_stage(workdir: Path) -> None:
    code = """
        from dynalign_contract.metrics import JudgeMetrics
        from dynalign_trainer.runtime.telemetry import Telemetry
        telemetry = Telemetry()
        telemetry.progress(3, 12)
        telemetry.metric(JudgeMetrics.reward, 0.5)
        server = telemetry.serve(int(ARGS["port"]))
        time.sleep(600)
    """
    with cluster(workdir) as opened:
        asyncio.run(opened.create(running(code)))

        def reads() -> bool:
            opened.wait(0.05)
            return only_job(opened).progress is not None

        until(reads, "progress")
        job = only_job(opened)
        assert job.progress is not None
        assert (job.progress.fraction, job.last_progress_time is not None) == (0.25, True)
        assert opened.live is not None
        assert opened.live.metrics == {"reward": 0.5}


def test_the_status_is_stored_once_for_each_version(workdir: Path) -> None:
    with cluster(workdir) as opened:
        old = opened.run
        asyncio.run(opened.write_status(old, old.status.model_copy(update={"progress": "1/2"})))
        with pytest.raises(ConflictError):
            asyncio.run(opened.write_status(old, old.status))
        asyncio.run(opened.publish(opened.run, [Event(EventType.NORMAL, "Something", "happened")]))
    stored = read_run(Workdir(workdir))
    assert stored is not None
    assert stored.status.progress == "1/2"
    assert (workdir / "logs" / "events.log").read_text().endswith("Normal Something happened\n")


def test_a_changed_spec_is_a_new_generation_of_the_same_run(workdir: Path) -> None:
    with cluster(workdir) as opened:
        asyncio.run(opened.write_status(opened.run, opened.run.status.model_copy(update={"progress": "1/2"})))
    with cluster(workdir) as same:
        assert (same.run.metadata.generation, same.run.status.progress) == (1, "1/2")
    with cluster(workdir, a_run().with_iterations(9)) as changed:
        assert (changed.run.metadata.generation, changed.run.status.progress) == (2, "1/2")
        assert changed.run.spec.iterations == 9


RULES_BY_FIELD = {transition.at: transition.message for transition in TRANSITIONS}
CHANGES = {
    "spec.model": a_run().with_spec(model={"uri": "bundled://other"}),
    "spec.objective": a_run().with_spec(objective={"builtin": "collective-agency"}),
    "spec.storage": a_run().with_spec(storage={"size": "1Gi"}),
    "spec.iterations": a_run().with_iterations(1),
}


def test_every_rule_of_the_cluster_holds_here() -> None:
    assert CHANGES.keys() == RULES_BY_FIELD.keys()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        *((change, f"{re.escape(at)} {re.escape(RULES_BY_FIELD[at])}") for at, change in CHANGES.items()),
        (a_run().named("other"), "holds the run r, not other"),
    ],
)
def test_what_must_not_change(workdir: Path, changed: RunBuilder, sentence: str) -> None:
    with cluster(workdir):
        pass
    with pytest.raises(ChangedFieldError, match=sentence) as error, cluster(workdir, changed):
        pass
    assert "choose another --workdir" in str(error.value).lower()


def test_a_folder_of_somebody_else_is_left_alone(workdir: Path) -> None:
    (workdir / "model").mkdir(parents=True)
    with pytest.raises(WorkdirError, match=r"holds no run\.json but other files \(model"), cluster(workdir):
        pass
    assert (workdir / "model").is_dir()


@pytest.mark.parametrize("contents", ["", "{", json.dumps({"kind": "Pod"})])
def test_a_run_that_cannot_be_read_is_not_overwritten(workdir: Path, contents: str) -> None:
    workdir.mkdir()
    (workdir / "run.json").write_text(contents)
    with pytest.raises(WorkdirError, match=r"run\.json is not a run"), cluster(workdir):
        pass
    assert (workdir / "run.json").read_text() == contents


def test_a_workdir_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="choose another --workdir"), cluster(tmp_path / "file" / "run"):
        pass


def test_several_nodes_are_refused(workdir: Path) -> None:
    several = a_run().with_spec(training={"nodes": 2})
    with pytest.raises(UnsupportedJobError, match=r"spec\.training\.nodes is 2"), cluster(workdir, several):
        pass
    assert not workdir.exists()


def test_a_full_disk_is_one_sentence_and_loses_nothing(workdir: Path) -> None:
    """A limit on the size of files makes the kernel refuse the write as a full disk does."""
    with cluster(workdir) as opened:
        before = (workdir / "run.json").read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(ClusterError, match=r"is full .* run the same command again"):
                asyncio.run(
                    opened.write_status(opened.run, opened.run.status.model_copy(update={"progress": "x" * 1000}))
                )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (workdir / "run.json").read_bytes() == before
        assert read_run(Workdir(workdir)) == opened.run


def test_the_lock_ends_with_its_holder(workdir: Path) -> None:
    with cluster(workdir) as opened:
        holder: AlignmentRun = opened.run
    with cluster(workdir) as next_one:
        assert next_one.run == holder


def test_sigterm_from_outside_is_exit_code_143(workdir: Path) -> None:
    bundle = running(POLITE)
    with cluster(workdir) as opened:
        asyncio.run(opened.create(bundle))
        until(lambda: is_ready(opened, bundle.name), "the start")
        (process,) = marked_processes(workdir)
        process.send_signal(signal.SIGTERM)
        until(lambda: has_ended(opened), "the end")
        assert (only_job(opened).phase, only_job(opened).exit_code) == (JobPhase.FAILED, 143)
