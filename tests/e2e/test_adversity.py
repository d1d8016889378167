"""What a run does when its stages are killed, its artifacts damaged and its volume full: nothing is lost or poisoned."""

import os
import resource
import signal
from pathlib import Path

import psutil
import pytest

from dynalign_contract.layout import RunLayout, part_name
from dynalign_contract.records import ROLLOUT, read_parts
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import Phase
from support.runs import LocalRun, write_run
from support.testbed import Testbed, make_testbed

pytestmark = pytest.mark.slow

SHORT = {
    "iterations": 1,
    "prompts": {"perIteration": 4, "heldOut": 4, "maxTokens": 96, "minCharacters": 10, "dedup": {"threshold": 1.0}},
    "generation": {"candidates": 4, "maxTokens": 48, "promptsPerPart": 1},
    "training": {"promptsPerStep": 4, "microBatch": 16, "lora": {"rank": 8}, "gradientCheckpointing": False},
}


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return make_testbed()


@pytest.fixture
def run(testbed: Testbed, tmp_path: Path) -> LocalRun:
    return write_run(tmp_path, testbed, SHORT)


def stage_process(parent: int) -> psutil.Process:
    (child,) = [c for c in psutil.Process(parent).children() if "dynalign_trainer.main" in " ".join(c.cmdline())]
    return child


def test_a_killed_stage_is_run_again_and_damage_is_never_trained_on(run: LocalRun) -> None:
    with run.start() as process:
        run.until(process, "runs generate")
        stage_process(process.pid).kill()
        run.until(process, "runs generate")
        run.until(process, "runs judge")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)
    assert process.returncode == 143

    layout = RunLayout(run.workdir)
    assert len(read_parts([layout.stage(Stage.GENERATE, 0)], ROLLOUT)) == 16
    damaged = layout.stage(Stage.GENERATE, 0) / part_name(2)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    refused = run.finish()
    assert refused.returncode == 11, refused
    assert str(damaged.name) in refused.stderr
    assert "remove the folder" in refused.stderr.lower()
    assert not layout.stage(Stage.TRAIN, 0).exists()

    damaged.write_bytes(whole)
    mended = run.finish()
    assert mended.returncode == 0, f"{mended.stderr}\n{run.logs()}"
    assert run.status.phase is Phase.SUCCEEDED
    assert (layout.export / "model.safetensors").is_file()


def test_a_full_volume_says_so_and_the_run_goes_on_once_there_is_space(run: LocalRun) -> None:
    def no_large_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    run.file.write_text(run.file.read_text().replace("  iterations: 1\n", "  iterations: 1\n  policy: {retries: 0}\n"))
    full = run.finish(preexec_fn=no_large_files)
    assert full.returncode == 1, full
    assert "has no space left" in full.stderr
    assert "spec.storage.size" in full.stderr
    with run.start() as process:
        run.until(process, "fetch succeeded")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    assert run.status.fetch is not None
    assert run.status.fetch.artifact is not None


def test_a_second_run_in_the_same_folder_waits_for_nobody(run: LocalRun) -> None:
    with run.start() as process:
        run.until(process, "runs fetch")
        second = run.finish()
        assert second.returncode == 75
        assert str(process.pid) in second.stderr
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=300)
