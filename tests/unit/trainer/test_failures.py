"""How a stage ends when something fails that it has not foreseen: a sentence, an exit code, and no third try in vain."""

import errno
import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.caches import cache_folder, check_caches
from dynalign_contract.config import GenerateParams, StageConfig
from dynalign_contract.errors import BadConfigError
from dynalign_contract.exit_codes import FINAL, ExitCode
from dynalign_contract.result import MAX_RESULT_BYTES, StageResult
from dynalign_contract.settings import GenerationSettings
from dynalign_contract.stages import Stage
from dynalign_operator.manifests import labels
from dynalign_trainer.fetch.apart import run_apart
from dynalign_trainer.runtime import failures
from dynalign_trainer.runtime import lifecycle as stage_life
from dynalign_trainer.runtime.context import StageContext, StageOutput
from dynalign_trainer.train.processes.launch import explain_end

WROTE = """\
[rank0]: Traceback (most recent call last):
[rank0]:   File "/venv/dynalign_trainer/train/checkpoints.py", line 64, in save
[rank0]:     write(path)
[rank0]: OSError: [Errno 28] No space left on device
"""

Run = Callable[[StageContext[Any]], StageOutput[Any]]
GENERATE = StageConfig(run="r", iteration=3, shards=2, params=GenerateParams(generation=GenerationSettings(shards=2)))


Attempt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Runs a stage that raises; gives its exit code, reason and message."""
    monkeypatch.setenv("DYNALIGN_CACHE", str(tmp_path / "cache"))

    def attempt(error: BaseException | Run, config: StageConfig = GENERATE) -> tuple[int, str, str]:
        def raises(_: StageContext[Any]) -> StageOutput[Any]:
            assert isinstance(error, BaseException)
            raise error

        module = types.ModuleType("stage_under_test")
        module.run = raises if isinstance(error, BaseException) else error  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(stage_life._DOORS, config.stage, module.__name__)
        (tmp_path / "stage.json").write_text(config.to_json())
        place = stage_life.Place(index=1)
        code = stage_life.run_stage(tmp_path / "stage.json", tmp_path / "run", tmp_path / "result", place)
        data = (tmp_path / "result").read_bytes()
        assert len(data) <= MAX_RESULT_BYTES
        result = StageResult.decode(data)
        return (code, "", "") if result.error is None else (code, result.error.reason, result.error.message)

    return attempt


def test_an_unforeseen_error_says_what_was_done_what_it_is_where_and_where_the_log_is(attempt: Attempt) -> None:
    code, reason, message = attempt(KeyError("prompt_id"))
    assert (code, reason) == (1, "KeyError")
    assert message.startswith("generate of iteration 3, shard 1 of 2 failed with KeyError: 'prompt_id' (")
    assert "test_failures.py:" in message
    assert "The traceback is in the log" in message


def test_an_error_without_a_text_shows_its_line(attempt: Attempt) -> None:
    assert "AssertionError: at `raise error`" in attempt(AssertionError())[2]


def test_the_log_is_a_file_here_and_a_command_in_a_cluster(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = (tmp_path / "log").open("w")
    kept = os.dup(2)
    try:
        os.dup2(log.fileno(), 2)
        assert failures.log_of(GENERATE) == f"the log {tmp_path / 'log'}"
        read, write = os.pipe()
        os.dup2(write, 2)
        selector = ",".join(f"{name}={value}" for name, value in ((labels.RUN, "r"), (labels.STAGE, "generate")))
        assert f"kubectl logs -l {selector}" in failures.log_of(GENERATE)
        selector = selector.replace("generate", "rollout")
        assert f"kubectl logs -l {selector}" in failures.log_of(GENERATE, Stage.ROLLOUT), "whose pods do it"
        os.close(read)
        os.close(write)
    finally:
        os.dup2(kept, 2)


def test_what_an_error_came_from_is_told(attempt: Attempt) -> None:
    def run(_: StageContext[Any]) -> StageOutput[Any]:
        raise RuntimeError("the model cannot be read") from LookupError("the third tensor has no name")

    message = attempt(run)[2]
    assert "RuntimeError: the model cannot be read; it came from LookupError: the third tensor has no name" in message


def test_a_long_text_with_control_characters_leaves_room_for_where_the_log_is(attempt: Attempt) -> None:
    message = attempt(ValueError("\x1b[31m\u202e" + "ä" * 9000))[2]
    assert "The traceback is in the log" in message
    assert not any(character in message for character in "\x1b\u202e\n")


def test_the_same_error_from_the_same_place_with_the_same_inputs_is_the_last(attempt: Attempt) -> None:
    assert attempt(ValueError("boom"))[0] not in FINAL
    code, reason, message = attempt(ValueError("boom"), GENERATE.model_copy(update={"attempt": 2}))
    assert (code, reason) == (ExitCode.REPEATED, "RepeatedError")
    assert "ValueError: boom" in message
    assert "the same error in the same place" in message


def raises_elsewhere(_: StageContext[Any]) -> StageOutput[Any]:
    raise ValueError("boom")


@pytest.mark.parametrize(
    ("error", "config"),
    [
        (TypeError("boom"), GENERATE),
        (ValueError("boom"), GENERATE.model_copy(update={"seed": 7})),
        (raises_elsewhere, GENERATE),
    ],
)
def test_another_error_another_place_or_other_inputs_get_another_try(
    attempt: Attempt, error: BaseException | Run, config: StageConfig
) -> None:
    attempt(ValueError("boom"))
    assert attempt(error, config)[0] not in FINAL


def test_what_was_overcome_is_forgotten(attempt: Attempt, tmp_path: Path) -> None:
    attempt(ValueError("boom"))
    assert attempt(lambda context: StageOutput(files={})) == (0, "", "")
    assert not list((tmp_path / "run").rglob(failures.LAST_ERROR))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: unspecified launch failure"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("timed out"),
        OSError(errno.ESTALE, "Stale file handle", "/volume/r/x"),
        OSError(errno.EIO, "Input/output error", "/volume/r/x"),
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("Error while serializing: I/O error: Stale file handle (os error 116)"),
        SystemExit("stopped"),
    ],
)
def test_what_may_pass_is_tried_again_and_again(attempt: Attempt, error: BaseException) -> None:
    tries = 1 if isinstance(error, SystemExit) else 3
    assert all(attempt(error)[0] not in FINAL for _ in range(tries))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "enlarge spec.storage.size"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "enlarge spec.storage.size"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "enlarge spec.storage.size"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "DYNALIGN_CACHE or TMPDIR"),  # noqa: S108
    ],
)
def test_a_full_file_system_is_named_and_tried_again(attempt: Attempt, error: Exception, words: str) -> None:
    code, reason, message = attempt(error)
    assert (code in FINAL, reason) == (False, "VolumeFull")
    assert words in message


def test_a_full_volume_is_found_behind_what_a_library_made_of_it(attempt: Attempt) -> None:
    def run(_: StageContext[Any]) -> StageOutput[Any]:
        raise RuntimeError("cannot save") from OSError(errno.ENOSPC, "No space left on device")

    assert attempt(run)[1] == "VolumeFull"


def test_a_full_volume_is_told_from_what_a_library_says_of_its_file(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=4096))
    assert attempt(RuntimeError("[enforce fail at inline_container.cc:664] unexpected pos 64 vs 0"))[1] == "VolumeFull"


def test_a_full_volume_is_found_in_what_a_training_process_wrote(attempt: Attempt) -> None:
    def run(_: StageContext[Any]) -> StageOutput[Any]:
        raise explain_end(1, WROTE.splitlines())

    assert [attempt(run)[1] for _ in range(3)] == ["VolumeFull"] * 3


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_may_not_be_written_is_the_users_to_mend(attempt: Attempt, number: int, tmp_path: Path) -> None:
    code, _, message = attempt(OSError(number, os.strerror(number), "/home/x/.cache/y"))
    assert code == ExitCode.BAD_CONFIG
    assert "/home/x/.cache/y cannot be used" in message
    assert "DYNALIGN_CACHE and HOME" in message
    code, _, message = attempt(OSError(number, os.strerror(number), str(tmp_path / "run" / "x")))
    assert code == ExitCode.BAD_CONFIG
    assert "fsGroup" in message


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_has_a_name_and_a_remedy_and_is_not_tried_again(attempt: Attempt, error: Exception) -> None:
    code, reason, message = attempt(error)
    assert (code in FINAL, reason) == (True, "OutOfMemory")
    assert "spec.engine.maxLength" in message
    assert "spec.stages.generate.resources" in message


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"HOME": "/proc"}, "HOME"),
        ({"HOME": "/proc"}, "DYNALIGN_CACHE"),
        ({"DYNALIGN_CACHE": "/proc/x"}, "DYNALIGN_CACHE"),
        ({"DYNALIGN_CACHE": "/dev/null"}, "DYNALIGN_CACHE"),
        ({"DYNALIGN_CACHE": "{}", "HF_HOME": "/proc/x"}, "HF_HOME"),
        ({"DYNALIGN_CACHE": "{}", "VLLM_CACHE_ROOT": "/proc/x"}, "VLLM_CACHE_ROOT"),
    ],
)
def test_a_cache_that_cannot_be_written_is_named_by_its_variable(
    environment: dict[str, str], named: str, tmp_path: Path
) -> None:
    with pytest.raises(BadConfigError, match=named):
        check_caches({name: value.format(tmp_path) for name, value in environment.items()})


def test_a_user_without_a_home_is_told_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(BadConfigError, match="DYNALIGN_CACHE"):
        cache_folder({})


def test_a_stage_looks_at_its_caches_before_it_works(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNALIGN_CACHE", "/proc/x")
    code, _, message = attempt(AssertionError("the stage ran"))
    assert code == ExitCode.BAD_CONFIG
    assert "the cache folder /proc/x, which follows from DYNALIGN_CACHE, cannot be written" in message


class LibraryError(OSError):
    """As a library's own: it cannot be made again from its arguments."""

    def __init__(self, *, response: str) -> None:
        super().__init__(errno.EIO, response)


def refuse(text: str) -> None:
    raise LibraryError(response=text) if text == "response" else ValueError(text)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [("no such layer", RuntimeError, "ValueError: no such layer"), ("response", OSError, "response")],
)
def test_what_went_wrong_in_a_process_apart_is_told_here(text: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        run_apart(refuse, (text,), lambda: None)
