"""Fetching the data of tasks: which are brought, what stands in for the hub, and what a failure means."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from datasets.exceptions import DatasetNotFoundError

from dynalign_contract.errors import BadInputError, StageError, TerminatedError
from dynalign_trainer.fetch import task_data
from dynalign_trainer.fetch.hub import HubUnreachableError
from dynalign_trainer.fetch.task_data import explain, fetch_task_data
from dynalign_trainer.tasks.data import MissingSentencesError

Look = Callable[[], None]


class Loaders:
    """Stands in for the processes that load: `missing` says which of them fail, and why."""

    def __init__(self, missing: dict[str, StageError]) -> None:
        self.missing = missing
        self.calls: list[str] = []

    def __call__(self, work: Callable[..., None], arguments: tuple[str, Path | None], look: Look) -> None:
        name, folder = arguments
        call = f"{work.__name__.strip('_')} {name} {'here' if folder is None else 'in its folder'}"
        self.calls.append(call)
        if folder is not None:
            folder.mkdir(exist_ok=True)
            (folder / "data").write_text("rows")
        look()
        if call in self.missing:
            raise self.missing[call]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Loaders]:
    def make(**missing: StageError) -> Loaders:
        loaders = Loaders({name.replace("_", " "): error for name, error in missing.items()})
        monkeypatch.setattr(task_data, "run_apart", loaders)
        return loaders

    return make


def ignore(done: int, total: int) -> None:
    """Nobody watches."""


def test_each_task_is_brought_once_and_looked_for_without_a_network(
    load: Callable[..., Loaders], tmp_path: Path
) -> None:
    loaders, seen = load(), []
    (tmp_path / "b").mkdir()
    fetch_task_data(["a", "b"], tmp_path, lambda done, total: seen.append((done, total)))
    assert loaders.calls == ["download a in its folder", "find a in its folder"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert seen == [(4, 0), (4, 0)]


def test_the_machines_own_cache_stands_in_for_the_hub(load: Callable[..., Loaders], tmp_path: Path) -> None:
    loaders = load(download_a_in_its_folder=HubUnreachableError("no network"))
    fetch_task_data(["a"], tmp_path, ignore)
    assert loaders.calls == ["download a in its folder", "find a here"]
    assert list(tmp_path.iterdir()) == []


def test_data_that_are_nowhere_end_the_stage_with_the_hubs_reason(load: Callable[..., Loaders], tmp_path: Path) -> None:
    load(download_a_in_its_folder=HubUnreachableError("no network"), find_a_here=BadInputError("not here"))
    with pytest.raises(HubUnreachableError, match="no network"):
        fetch_task_data(["a"], tmp_path, ignore)
    assert not (tmp_path / "a").exists()


def test_sigterm_is_obeyed_and_keeps_what_is_there(load: Callable[..., Loaders], tmp_path: Path) -> None:
    loaders = load()

    def stop(done: int, total: int) -> None:
        raise TerminatedError("stopped")

    with pytest.raises(TerminatedError):
        fetch_task_data(["a"], tmp_path, stop)
    assert loaders.calls == ["download a in its folder"]
    assert [path.name for path in tmp_path.iterdir()] == [".a.tmp"]


def refused(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://hub")
    return httpx.HTTPStatusError(str(status), request=request, response=httpx.Response(status, request=request))


def caused(by: Exception) -> Exception:
    error = RuntimeError("a loader's own words")
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (DatasetNotFoundError("'a/b' is a gated dataset"), BadInputError, "accept their terms there"),
        (caused(refused(401)), BadInputError, "spec.model.tokenSecretRef"),
        (caused(refused(503)), HubUnreachableError, "goes on where this one stopped"),
        (ConnectionError("no route"), HubUnreachableError, "dynalign_choices"),
        (MissingSentencesError("punkt_tab"), HubUnreachableError, "raw.githubusercontent.com"),
        (caused(OSError(errno.ENOSPC, "full")), OSError, "full"),
        (RuntimeError("Dataset scripts are no longer supported"), BadInputError, "name another one"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_failure_means(error: Exception, kind: type[Exception], sentence: str) -> None:
    found = explain(error, "a")
    assert type(found) is kind
    assert sentence in str(found)


def test_work_apart(tmp_path: Path) -> None:
    import json
    import os
    import time

    from dynalign_trainer.fetch.apart import run_apart

    def look() -> None:
        """Go on."""

    def stop() -> None:
        raise TerminatedError("stopped")

    run_apart(os.mkdir, (tmp_path / "made",), look)
    assert (tmp_path / "made").is_dir()
    cases: list[tuple[Any, Any, Look, type[Exception]]] = [
        (os.mkdir, tmp_path / "made", look, FileExistsError),
        (json.loads, "{", look, RuntimeError),
        (time.sleep, 1000, stop, TerminatedError),
    ]
    for work, argument, watch, error in cases:
        with pytest.raises(error):
            run_apart(work, (argument,), watch)
