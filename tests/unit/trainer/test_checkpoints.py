"""Checkpoints: only sealed, undamaged ones of this very job count."""

import os
from pathlib import Path

import pytest

from dynalign_contract.manifest import ArtifactFile, describe_file, read_listed
from dynalign_contract.settings import TrainingSettings
from dynalign_trainer.train.checkpoints import claim_folder, drop_programs, find_checkpoint, seal_checkpoint
from dynalign_trainer.train.job import REPORTS_FILE, StepReport, TrainJob, append_report, keep_reports, read_reports
from support.planted import plant_pickle


def a_job(work: Path) -> TrainJob:
    return TrainJob(
        model=work,
        start=None,
        batch=work / "batch.parquet",
        work=work,
        output=work,
        training=TrainingSettings(),
        temperature=1.0,
        max_tokens=8,
        group_size=4,
        iteration=0,
        config_digest="sha256:" + "0" * 64,
        seed=0,
    )


def write_checkpoint(work: Path, step: int, *, sealed: bool = True) -> Path:
    folder = work / f"checkpoint-{step}"
    (folder / "state").mkdir(parents=True)
    (folder / "state" / "weights.pt").write_bytes(b"weights of %d" % step)
    if sealed:
        seal_checkpoint(folder, a_job(work))
    return folder


def test_the_latest_sealed_checkpoint_counts(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 9)
    latest = write_checkpoint(tmp_path, 10)
    half_written = write_checkpoint(tmp_path, 11, sealed=False)
    assert find_checkpoint(tmp_path) == latest
    assert not half_written.exists()


def test_digests_that_the_ranks_have_computed_are_not_computed_again(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1, sealed=False)
    (folder / "own").write_bytes(b"what rank 0 reads")
    theirs = ArtifactFile(name="state/weights.pt", bytes=3, sha256="a" * 64)
    seal_checkpoint(folder, a_job(tmp_path), [theirs])
    listed = {file.name: file for file in read_listed(folder).files}
    assert listed["state/weights.pt"] == theirs
    assert listed["own"] == describe_file(folder, "own")


@pytest.mark.parametrize("damage", [b"", b"weights of 11", b"weights of 10 and more"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    previous, latest = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    (latest / "state" / "weights.pt").write_bytes(damage)
    assert find_checkpoint(tmp_path) == previous
    assert "weights.pt" in caplog.text
    (previous / "state" / "weights.pt").unlink()
    assert find_checkpoint(tmp_path) is None


def test_a_sealed_checkpoint_with_a_pickle_in_it_is_never_opened(tmp_path: Path) -> None:
    """Who can write to the volume can also write a manifest that fits."""
    previous = write_checkpoint(tmp_path, 9)
    planted = write_checkpoint(tmp_path, 10, sealed=False)
    plant_pickle(planted / "state" / "mp_rank_00_model_states.pt", tmp_path / "mark")
    seal_checkpoint(planted, a_job(tmp_path))
    assert find_checkpoint(tmp_path) == previous
    assert not planted.exists()
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", ["extra", "link", "file", "pipe"])
def test_what_is_no_checkpoint_gives_way_to_the_one_before(tmp_path: Path, kind: str) -> None:
    previous, path = write_checkpoint(tmp_path, 9), tmp_path / "checkpoint-10"
    match kind:
        case "extra":
            write_checkpoint(tmp_path, 10)
            (path / "state" / "more.py").write_text("raise SystemExit")
        case "link":
            path.symlink_to(tmp_path / "nowhere")
        case "file":
            path.write_text("")
        case "pipe":
            os.mkfifo(path)
    assert find_checkpoint(tmp_path) == previous
    assert not path.is_symlink()
    assert not path.exists()


def test_programs_are_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1, sealed=False)
    (folder / "state" / "zero_to_torch.py").write_text("print()")
    plant_pickle(folder / "training_args.bin", tmp_path / "mark")
    drop_programs(folder)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["weights.pt"]


def test_checkpoints_of_another_job_are_removed(tmp_path: Path) -> None:
    work = tmp_path / "checkpoints"
    claim_folder(work, "digest")
    checkpoint = write_checkpoint(work, 1)
    claim_folder(work, "digest")
    assert find_checkpoint(work) == checkpoint
    claim_folder(work, "another digest")
    assert find_checkpoint(work) is None


def a_report(step: int, loss: float = 0.0) -> StepReport:
    return StepReport(
        step=step,
        steps=5,
        loss=loss,
        kl=0.0,
        entropy=1.0,
        ratio_mean=1.0,
        ratio_max=1.0,
        clip_share=0.0,
        grad_norm=None,
        tokens=10,
        seconds=1.0,
    )


def test_reports_survive_a_killed_worker_and_steps_taken_again(tmp_path: Path) -> None:
    assert read_reports(tmp_path) == []
    for step in (1, 2, 3):
        append_report(tmp_path, a_report(step))
    with (tmp_path / REPORTS_FILE).open("a") as file:
        file.write('{"step": 4, "st')
    assert [report.step for report in read_reports(tmp_path)] == [1, 2, 3]
    keep_reports(tmp_path, 2)
    append_report(tmp_path, a_report(3, loss=7.0))
    assert [(report.step, report.loss) for report in read_reports(tmp_path)] == [(1, 0.0), (2, 0.0), (3, 7.0)]
