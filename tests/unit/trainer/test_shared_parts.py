"""Shards share their parts: every part is made, ends up where it belongs, and no pod waits for one that is gone."""

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign_contract.config import GenerateParams, StageConfig
from dynalign_contract.errors import TerminatedError
from dynalign_contract.layout import RunLayout
from dynalign_contract.records import ROLLOUT, RolloutRow, read_rows, write_rows
from dynalign_contract.settings import GenerationSettings
from dynalign_trainer.generate.stage import is_complete
from dynalign_trainer.runtime import leases
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.leases import EXPIRY_SECONDS, Leases
from dynalign_trainer.runtime.shared_parts import SharedParts, Task
from dynalign_trainer.runtime.telemetry import Telemetry

CANDIDATES = 2
Shared = SharedParts[Any, RolloutRow]


def rows_of(task: Task[Any]) -> list[RolloutRow]:
    """What a pod makes of a part, whichever pod it is."""
    return [
        {
            "prompt_id": prompt["prompt_id"],
            "candidate": k,
            "prompt_ids": [1, 2],
            "completion_ids": [3, k],
            "logprobs": [-0.5, -1.5],
            "finish_reason": "stop",
            "policy": "base",
            "text": f"{prompt['prompt_id']} {k}",
            "messages": [{"role": "user", "content": "?"}],
        }
        for prompt in task.part.inputs
        for k in range(CANDIDATES)
    ]


class Stage:
    """A stage with shards, and the attempts of its pods."""

    def __init__(self, root: Path, shards: int, prompts: int, size: int = 1) -> None:
        params = GenerateParams(generation=GenerationSettings(candidates=CANDIDATES, shards=shards))
        self.config = StageConfig(run="test", iteration=0, shards=shards, params=params)
        self.root, self.prompts, self.size = root, [{"prompt_id": f"p{i:02d}"} for i in range(prompts)], size

    def pod(self, shard: int) -> Shared:
        """A new attempt of a shard."""
        folder = self.root / self.config.shard(shard)
        folder.mkdir(parents=True, exist_ok=True)
        context: StageContext[Any] = StageContext(
            config=self.config,
            params=self.config.params,
            layout=RunLayout(self.root),
            folder=folder,
            shard=shard,
            inputs={},
            telemetry=Telemetry(),
            stopping=threading.Event(),
        )
        return SharedParts(
            context,
            self.prompts,
            size=self.size,
            table=ROLLOUT,
            is_complete=lambda part, rows: is_complete(part, rows, CANDIDATES),
        )

    def files(self, shard: int) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.root / self.config.shard(shard)).glob("part-*")}

    @property
    def leases(self) -> Path:
        return self.root / self.config.leases


def work(shared: Shared, seconds: float = 0.0) -> list[Task[Any]]:
    """What a pod does from its start to its end; returns the parts that it has made."""
    made = []
    with shared:
        while (task := shared.take() or shared.wait()) is not None:
            time.sleep(seconds)
            shared.renew()
            shared.finish(task, rows_of(task))
            made.append(task)
    return made


def begin_to_help(shared: Shared, shard: int) -> Task[Any]:
    """Make the pod's own parts, and take one of another shard, which is returned."""
    while (task := shared.take()) is not None and task.shard == shard:
        shared.finish(task, rows_of(task))
    assert task is not None
    return task


def undisturbed(root: Path, shards: int, prompts: int) -> dict[int, dict[str, bytes]]:
    """The files that every shard leaves if each makes its own parts."""
    stage = Stage(root / "undisturbed", shards, prompts)
    found = {}
    for shard in range(shards):
        folder = stage.root / stage.config.shard(shard)
        for part in stage.pod(shard).parts:
            task = Task(shard, part)
            write_rows(folder / part.name, rows_of(task), ROLLOUT)
        found[shard] = stage.files(shard)
    return found


@pytest.mark.parametrize("slow", [None, 0, 1, 2])
def test_whoever_is_slow_the_shards_leave_the_same_files_and_nobody_makes_a_part_twice(
    tmp_path: Path, slow: int | None
) -> None:
    stage = Stage(tmp_path, shards=3, prompts=20)
    made: dict[int, list[Task[Any]]] = {}

    def run(shard: int) -> None:
        made[shard] = work(stage.pod(shard), 0.2 if shard == slow else 0.02)

    pods = [threading.Thread(target=run, args=(shard,)) for shard in range(3)]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join()
    assert {shard: stage.files(shard) for shard in range(3)} == undisturbed(tmp_path, 3, 20)
    names = [task.name for tasks in made.values() for task in tasks]
    assert len(names) == len(set(names)) == 20
    if slow is not None:
        assert len(made[slow]) < 6
    assert not stage.leases.exists()


def test_shards_that_run_one_after_the_other_find_their_parts_made(tmp_path: Path) -> None:
    stage = Stage(tmp_path, shards=2, prompts=6)
    assert len(work(stage.pod(0))) == 6
    assert work(stage.pod(1)) == []
    assert {shard: stage.files(shard) for shard in range(2)} == undisturbed(tmp_path, 2, 6)
    assert not stage.leases.parent.exists()


def test_a_pod_without_work_of_its_own_does_not_begin_that_of_others(tmp_path: Path) -> None:
    """It has no engine yet, and a restarted one would start it for nothing but this."""
    stage = Stage(tmp_path, shards=2, prompts=1)
    assert stage.pod(1).take() is None
    assert stage.pod(1).wait() is None


@pytest.mark.parametrize(
    ("shards", "prompts", "sizes"), [(1, 40, [8] * 5), (2, 80, [8] * 5), (2, 40, [5] * 4), (2, 4, [1, 1])]
)
def test_a_shard_among_several_has_parts_enough_for_others_to_help(
    tmp_path: Path, shards: int, prompts: int, sizes: list[int]
) -> None:
    shared = Stage(tmp_path, shards, prompts, size=8).pod(0)
    assert [len(part.inputs) for part in shared.parts] == sizes


def test_one_shard_alone_has_no_leases(tmp_path: Path) -> None:
    stage = Stage(tmp_path, shards=1, prompts=3)
    assert [task.part.index for task in work(stage.pod(0))] == [0, 1, 2]
    assert not stage.leases.parent.exists()


def test_a_pod_that_comes_back_has_its_parts_and_its_leases(tmp_path: Path) -> None:
    stage = Stage(tmp_path, shards=2, prompts=6)
    before = stage.pod(0)
    first, second = before.take(), before.take()
    assert first is not None
    assert second is not None
    before.finish(first, rows_of(first))
    again = work(stage.pod(0))
    assert [(task.shard, task.part.index) for task in again[:2]] == [(0, 1), (0, 2)]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_expires_only_where_it_was_watched_unchanged(tmp_path: Path) -> None:
    mine, yours = Clock(), Clock()
    holder, watcher = Leases(tmp_path, 0, clock=mine), Leases(tmp_path, 1, clock=yours)
    assert holder.take("a")
    assert not watcher.take("a")
    for _ in range(10):
        assert not watcher.has_expired("a")
        yours.now += EXPIRY_SECONDS / 2
        mine.now += EXPIRY_SECONDS / 2
        holder.renew()
    assert not watcher.has_expired("a")
    yours.now += EXPIRY_SECONDS
    assert watcher.has_expired("a")
    assert watcher.take_over("a")
    assert not holder.holds("a")
    holder.renew()
    assert watcher.holds("a")
    assert not holder.take("a")


def test_a_lease_that_was_removed_with_all_others_does_not_come_back(tmp_path: Path) -> None:
    clock = Clock()
    holder = Leases(tmp_path / "leases", 0, clock=clock)
    assert holder.take("a")
    (path,) = (tmp_path / "leases").iterdir()
    path.unlink()
    clock.now += 100
    holder.renew()
    assert holder.names() == frozenset()
    assert not holder.holds("a")


def test_a_lease_that_another_node_has_removed_while_it_was_open_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS answers with ESTALE then."""
    clock = Clock()
    holder = Leases(tmp_path, 0, clock=clock)
    assert holder.take("a")

    def is_stale(*_: Any, **__: Any) -> str:
        raise OSError(errno.ESTALE, "Stale file handle")

    for name in ("open", "read_text", "iterdir"):
        monkeypatch.setattr(Path, name, is_stale)
    clock.now += 100
    holder.renew()
    assert not holder.holds("a")
    assert holder.names() == frozenset()


def test_a_pod_that_comes_back_renews_what_an_earlier_attempt_renewed_often(tmp_path: Path) -> None:
    """Every renewal is a change, whatever was written before."""
    clock, contents = Clock(), []
    (tmp_path / "a.lease").write_text("0 123")
    holder = Leases(tmp_path, 0, clock=clock)
    assert holder.take("a")
    for _ in range(3):
        contents.append((tmp_path / "a.lease").read_text())
        clock.now += 100
        holder.renew()
    assert len({"0 123", *contents}) == 4


def test_a_part_of_a_pod_that_is_gone_is_made_by_the_shard_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 1.0)
    stage = Stage(tmp_path, shards=2, prompts=4)
    gone = stage.pod(1)
    assert begin_to_help(gone, 1).shard == 0
    assert [task.shard for task in work(stage.pod(0))] == [0, 0]
    assert work(stage.pod(1)) == []
    assert {shard: stage.files(shard) for shard in range(2)} == undisturbed(tmp_path, 2, 4)


def test_what_a_pod_makes_after_it_lost_its_lease_is_dropped(tmp_path: Path) -> None:
    stage = Stage(tmp_path, shards=2, prompts=2)
    slow = stage.pod(1)
    helped = begin_to_help(slow, 1)
    assert Leases(stage.leases, 0).take_over(helped.name)
    slow.finish(helped, rows_of(helped))
    assert not list(stage.leases.glob("*.parquet"))


def test_an_interrupted_pod_lets_others_take_what_it_has_not_finished(tmp_path: Path) -> None:
    stage = Stage(tmp_path, shards=2, prompts=2)
    interrupted = stage.pod(1)

    def run() -> Task[Any]:
        with interrupted:
            begin_to_help(interrupted, 1)
            raise TerminatedError("stopped by SIGTERM")

    with pytest.raises(TerminatedError):
        run()
    helped = stage.pod(0).take()
    assert helped is not None
    assert helped.shard == 0


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"PAR1"), lambda path: write_rows(path, [], ROLLOUT)], ids=["file", "rows"]
)
def test_a_damaged_part_of_another_pod_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    stage = Stage(tmp_path, shards=2, prompts=4)
    first = stage.pod(0)
    made = begin_to_help(first, 0)
    first.finish(made, rows_of(made))
    damage(stage.leases / made.result(0))
    first.__exit__(None, None, None)
    assert made in work(stage.pod(1))
    assert stage.files(1) == undisturbed(tmp_path, 2, 4)[1]


def test_sigterm_ends_the_wait_for_another_pod(tmp_path: Path) -> None:
    stage = Stage(tmp_path, shards=2, prompts=2)
    other = stage.pod(1)
    begin_to_help(other, 1)
    waiting = stage.pod(0)
    waiting._context.stopping.set()
    with pytest.raises(TerminatedError):
        waiting.wait()


def test_progress_counts_what_is_made_for_others(tmp_path: Path) -> None:
    shared = Stage(tmp_path, shards=2, prompts=5, size=1).pod(0)
    seen = [(shared.done, shared.total)]
    while (task := shared.take()) is not None:
        seen.append((shared.done, shared.total))
        shared.finish(task, rows_of(task))
    assert seen == [(0, 3), (0, 3), (1, 3), (2, 3), (3, 4), (4, 5)]
    assert (shared.done, shared.total) == (5, 5)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shards=st.integers(1, 4), prompts=st.integers(0, 9), size=st.integers(1, 3))
def test_in_any_order_of_events_every_part_is_made_once_it_can_be(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shards: int, prompts: int, size: int
) -> None:
    """Pods take, finish, die and come back in any order; in the end each runs to its end."""
    stage = Stage(tmp_path_factory.mktemp("run"), shards, prompts, size)
    pods = {shard: stage.pod(shard) for shard in range(shards)}
    at: dict[int, list[Task[Any]]] = {shard: [] for shard in range(shards)}
    for _ in range(data.draw(st.integers(0, 12))):
        shard = data.draw(st.integers(0, shards - 1))
        event = data.draw(st.sampled_from(["take", "finish", "die"]))
        if event == "die":
            pods[shard], at[shard] = stage.pod(shard), []
        elif event == "take" and (task := pods[shard].take()) is not None:
            at[shard].append(task)
        elif event == "finish" and at[shard]:
            task = at[shard].pop(0)
            pods[shard].finish(task, rows_of(task))
    for shard in range(shards):
        pods[shard].__exit__(RuntimeError, RuntimeError(), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "EXPIRY_SECONDS", 0.0)
        for shard in range(shards):
            work(stage.pod(shard))
    for shard in range(shards):
        folder = stage.root / stage.config.shard(shard)
        for part in stage.pod(shard).parts:
            assert read_rows(folder / part.name, ROLLOUT) == rows_of(Task(shard, part))


def test_leases_of_another_configuration_are_never_met(tmp_path: Path) -> None:
    config = Stage(tmp_path, shards=2, prompts=2).config
    assert config.model_copy(update={"seed": 7}).leases != config.leases
