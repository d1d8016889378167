"""What one pod has compiled the next one finds; whatever goes wrong with that, the stage goes on."""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from dynalign_trainer.runtime.compile_cache import own_caches, shared_compiled_code


def a_pod(root: Path, name: str, image: str = "trainer:1") -> dict[str, str]:
    """The environment of a pod with caches of its own and the run's volume, which all pods share."""
    return {
        "DYNALIGN_COMPILED": str(root / "volume" / "r" / "cache"),
        "DYNALIGN_IMAGE": image,
        "VLLM_CACHE_ROOT": str(root / name / "vllm"),
        "TRITON_CACHE_DIR": str(root / name / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(root / name / "torchinductor"),
    }


def compile_code(pod: Mapping[str, str], text: str = "code", *, publishes: bool = True) -> str | None:
    """A stage that compiles; returns what it found before it did."""
    file = Path(pod["VLLM_CACHE_ROOT"]) / "torch_compile_cache" / "kernel.py"
    with shared_compiled_code(pod, publishes=publishes):
        found = file.read_text() if file.exists() else None
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        triton = Path(pod["TRITON_CACHE_DIR"]) / text
        triton.parent.mkdir(parents=True, exist_ok=True)
        triton.write_bytes(b"x" * 1000)
    return found


def archives(root: Path) -> list[Path]:
    return sorted((root / "volume" / "r" / "cache").iterdir())


def test_the_next_pod_finds_what_the_first_has_compiled(tmp_path: Path) -> None:
    assert compile_code(a_pod(tmp_path, "one")) is None
    assert compile_code(a_pod(tmp_path, "two")) == "code"
    assert (tmp_path / "two" / "triton" / "code").stat().st_size == 1000
    assert [path.suffix for path in archives(tmp_path)] == [".tar"]


def test_empty_folders_that_are_there_already_are_filled(tmp_path: Path) -> None:
    """A stage makes its cache folders before anything else, to see whether they can be written."""
    compile_code(a_pod(tmp_path, "one"))
    for folder in ("vllm", "triton", "torchinductor"):
        (tmp_path / "two" / folder).mkdir(parents=True)
    assert compile_code(a_pod(tmp_path, "two")) == "code"


def test_another_image_compiles_for_itself(tmp_path: Path) -> None:
    compile_code(a_pod(tmp_path, "one"))
    assert compile_code(a_pod(tmp_path, "two", image="trainer:2")) is None
    assert len(archives(tmp_path)) == 2


def test_what_is_the_same_is_not_written_again_and_what_is_new_is(tmp_path: Path) -> None:
    compile_code(a_pod(tmp_path, "one"))
    (archive,) = archives(tmp_path)
    first = archive.stat()
    compile_code(a_pod(tmp_path, "two"))
    assert archive.stat().st_ino == first.st_ino
    compile_code(a_pod(tmp_path, "three"), "longer")
    assert archive.stat().st_ino != first.st_ino


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "folder", "unreadable head"])
def test_a_damaged_archive_is_ignored_and_replaced(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compile_code(a_pod(tmp_path, "one"))
    (archive,) = archives(tmp_path)
    data = archive.read_bytes()
    archive.unlink()
    match damage:
        case "cut":
            archive.write_bytes(data[: len(data) // 2])
        case "flip":
            archive.write_bytes(data[:700] + bytes([data[700] ^ 1]) + data[701:])
        case "empty":
            archive.touch()
        case "folder":
            archive.mkdir()
        case "unreadable head":
            archive.write_bytes(b"\xff" * 65 + data[65:])
    with caplog.at_level(logging.WARNING):
        assert compile_code(a_pod(tmp_path, "two")) is None
    assert caplog.messages
    if damage != "folder":
        assert compile_code(a_pod(tmp_path, "three")) == "code"


def test_of_two_publishers_at_once_one_archive_stays_whole(tmp_path: Path) -> None:
    both = Barrier(2)

    def publish(name: str) -> None:
        file = tmp_path / name / "vllm" / "kernel.py"
        with shared_compiled_code(a_pod(tmp_path, name), publishes=True):
            file.parent.mkdir(parents=True)
            file.write_text(name * 500_000)
            both.wait()

    for turn in range(5):
        names = [f"a{turn}", f"b{turn}"]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(publish, names))
        (archive,) = archives(tmp_path)
        reader = a_pod(tmp_path, f"reader{turn}")
        with shared_compiled_code(reader, publishes=False):
            assert (tmp_path / f"reader{turn}" / "vllm" / "kernel.py").read_text() in [name * 500_000 for name in names]
        archive.unlink()


def test_a_volume_that_cannot_be_written_fails_no_stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "volume").write_text("a file in the place of the folder")
    with caplog.at_level(logging.WARNING):
        assert compile_code(a_pod(tmp_path, "one")) is None
    assert any("could not be written" in message for message in caplog.messages)


def test_a_stage_that_fails_publishes_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with shared_compiled_code(a_pod(tmp_path, "one"), publishes=True):
            (tmp_path / "one" / "vllm").mkdir(parents=True)
            (tmp_path / "one" / "vllm" / "x").touch()
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert not (tmp_path / "volume").exists()


def test_nothing_is_passed_on_where_nothing_says_so(tmp_path: Path) -> None:
    pod = a_pod(tmp_path, "one")
    del pod["DYNALIGN_COMPILED"]
    compile_code(pod)
    compile_code(a_pod(tmp_path, "two"), publishes=False)
    assert not (tmp_path / "volume").exists()


def test_an_archive_cannot_write_elsewhere(tmp_path: Path) -> None:
    """The archive lies on a volume: names in it that lead out are refused, and the stage compiles for itself."""
    import hashlib
    import io
    import tarfile

    compile_code(a_pod(tmp_path, "one"))
    (archive,) = archives(tmp_path)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:") as tar:
        tar.addfile(tarfile.TarInfo("../../outside"))
    archive.write_bytes(hashlib.sha256(content.getvalue()).hexdigest().encode() + b"\n" + content.getvalue())
    assert compile_code(a_pod(tmp_path, "two")) is None
    assert not list(tmp_path.rglob("outside"))


def test_a_further_process_begins_with_a_copy_and_its_code_stays_its_own(tmp_path: Path) -> None:
    pod = a_pod(tmp_path, "one")
    compile_code(pod)
    further = {**pod, **own_caches(pod, "engine-1")}
    assert {name for name in further if further[name] != pod[name]} == {
        "VLLM_CACHE_ROOT",
        "TRITON_CACHE_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
    }
    kernel = Path("torch_compile_cache") / "kernel.py"
    assert (further["VLLM_CACHE_ROOT"] / kernel).read_text() == "code"
    (further["VLLM_CACHE_ROOT"] / kernel).write_text("more")
    assert (pod["VLLM_CACHE_ROOT"] / kernel).read_text() == "code"
    assert own_caches(pod, "engine-1").items() <= further.items()
    assert (further["VLLM_CACHE_ROOT"] / kernel).read_text() == "more", "what it has compiled before is kept"
    assert own_caches({}, "engine-1") == {}
