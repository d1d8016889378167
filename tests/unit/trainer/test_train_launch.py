"""Launching: how many processes, what they are told, and that none outlives the stage."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dynalign_contract.errors import BadConfigError, BadInputError, TrainingFailedError
from dynalign_contract.settings import TrainingSettings
from dynalign_trainer.runtime.context import Gang
from dynalign_trainer.train.processes.launch import (
    SINGLE_NODE,
    Processes,
    count_processes,
    rendezvous_of,
    run_alone,
    run_workers,
    torchrun_command,
    worker_environment,
)


@pytest.mark.parametrize(
    ("wanted", "gpus", "cores", "expected"),
    [
        (1, 0, 2, Processes(count=1, threads=2)),
        (8, 0, 2, Processes(count=2, threads=1)),
        (2, 0, 7, Processes(count=2, threads=3)),
        (8, 8, 96, Processes(count=8, threads=12)),
        (4, 8, 2, Processes(count=4, threads=1)),
    ],
)
def test_processes_of_a_node(wanted: int, gpus: int, cores: int, expected: Processes) -> None:
    assert count_processes(TrainingSettings(gpus_per_node=wanted), gpus=gpus, cores=cores) == expected


def test_what_the_machine_cannot_give_is_a_bad_configuration() -> None:
    with pytest.raises(BadConfigError, match=r"spec\.training\.gpusPerNode is 8 but this machine offers 2"):
        count_processes(TrainingSettings(gpus_per_node=8), gpus=2, cores=4)


def test_nodes_of_a_gang_run_equally_many_processes_whatever_cores_they_have() -> None:
    settings = TrainingSettings(nodes=2, gpus_per_node=4)
    assert [count_processes(settings, gpus=0, cores=cores).count for cores in (2, 8)] == [4, 4]


def test_several_nodes_differ_in_the_rendezvous_only() -> None:
    processes = Processes(count=4, threads=1)
    several = rendezvous_of(Gang(rank=1, nodes=2, coordinator="r-i000-train-a1-0.train-r:29400"))
    assert "--node-rank 1 --rdzv-backend static --master-addr r-i000-train-a1-0.train-r" in " ".join(several.arguments)
    assert rendezvous_of(Gang()) == SINGLE_NODE
    one = torchrun_command(processes, SINGLE_NODE, Path("job.json"))
    many = torchrun_command(processes, several, Path("job.json"))
    assert [part for part in one if part not in SINGLE_NODE.arguments] == [
        part for part in many if part not in several.arguments
    ]
    assert worker_environment(processes, SINGLE_NODE, gpus=4)["NCCL_SOCKET_IFNAME"] == "lo"
    assert "NCCL_SOCKET_IFNAME" not in worker_environment(processes, several, gpus=4)


def test_workers_never_reach_for_the_network() -> None:
    environment = worker_environment(Processes(count=1, threads=2), SINGLE_NODE, gpus=1)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "DS_ACCELERATOR" not in environment
    on_cpu = worker_environment(Processes(count=1, threads=2), SINGLE_NODE, gpus=0)
    assert (on_cpu["DS_ACCELERATOR"], on_cpu["TORCH_COMPILE_DISABLE"]) == ("cpu", "1")


def test_a_failure_quotes_the_last_lines() -> None:
    script = "import sys; print('loading'); sys.exit('the disk is on fire')"
    with pytest.raises(TrainingFailedError, match=r"^the disk is on fire: .*\(code 1\).* Before that: loading$"):
        run_workers([sys.executable, "-c", script], {}, watch=lambda: None)


def test_whatever_interrupts_the_stage_ends_the_workers() -> None:
    before = {process.pid for process in psutil.Process().children()}

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_workers([sys.executable, "-c", "import signal; signal.pause()"], {}, watch=interrupted)
    assert {process.pid for process in psutil.Process().children()} <= before


def test_how_the_only_worker_fails_is_told_without_torchrun_too(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailedError, match=r"job\.json.* \(code 1\)"):
        run_alone(tmp_path / "job.json", {}, watch=lambda: None)


def test_an_only_worker_that_a_signal_has_ended_is_told_of_as_torchrun_does(tmp_path: Path) -> None:
    before = {process.pid for process in psutil.Process().children()}

    def kill() -> None:
        for process in psutil.Process().children():
            if process.pid not in before:
                process.kill()

    with pytest.raises(TrainingFailedError, match="rank 0 was killed by signal 9; signal 9 often means too little"):
        run_alone(tmp_path / "job.json", {}, watch=lambda: None, first=kill)


def test_what_comes_first_runs_beside_the_workers(tmp_path: Path) -> None:
    """They end when they have met it, so they were there."""
    script = "import sys; from pathlib import Path\nwhile not Path(sys.argv[1]).exists(): pass"
    mark = tmp_path / "mark"
    run_workers([sys.executable, "-c", script, str(mark)], {}, watch=lambda: None, first=mark.touch)


def test_an_error_of_what_comes_first_ends_the_workers_and_stays_what_it_is() -> None:
    before = {process.pid for process in psutil.Process().children()}

    def fails() -> None:
        raise BadInputError("there is no candidate")

    with pytest.raises(BadInputError, match="there is no candidate"):
        run_workers([sys.executable, "-c", "import signal; signal.pause()"], {}, watch=lambda: None, first=fails)
    assert {process.pid for process in psutil.Process().children()} <= before


def test_a_worker_ends_with_the_process_that_started_it() -> None:
    child = (
        "import os, signal; from dynalign_trainer.runtime.lifetime import die_with_parent; "
        "die_with_parent(os.getppid()); print(os.getpid(), flush=True); signal.pause()"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = psutil.Process(int(process.stdout.readline()))
        os.kill(process.pid, signal.SIGKILL)
        worker.wait(timeout=60)
    assert not worker.is_running()
