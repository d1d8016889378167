"""Batches that pods share: every answer is that of one pod alone, and no pod is waited for that does not answer."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_trainer.models.chat_model import ChatTurn, Completion, Sampling, Usage
from dynalign_trainer.models.choices import DIGITS, Choices
from dynalign_trainer.prompts import shared_model
from dynalign_trainer.prompts.batches import GRAIN, Answers, Batch, part_size
from dynalign_trainer.prompts.exchange import Exchange
from dynalign_trainer.prompts.shared_model import SharedModel, Sharing, answer
from dynalign_trainer.runtime.progress import Watch
from support.scripted_model import ScriptedModel

SAMPLING = Sampling(temperature=1.0, max_tokens=8)


@dataclass
class BatchedModel(ScriptedModel):
    """Its answers depend on all that it is asked together, as the last bits of an engine's do on a CPU."""

    calls: list[int] = field(default_factory=list)
    """Turns of each call."""

    def write(
        self, turns: Sequence[ChatTurn], sampling: Sampling, *, seeds: Sequence[int], watch: Watch | None
    ) -> list[Completion | None]:
        self._call(turns, watch)
        together = hash(tuple(turn.message for turn in turns))
        return [Completion(turn.opening, f"{turn.message} {together}", finished=True) for turn in turns]

    def choose(self, turns: Sequence[ChatTurn], choices: Choices, watch: Watch | None) -> list[list[float]]:
        self._call(turns, watch)
        draw = random.Random(str([turn.message for turn in turns]))
        return [[-draw.expovariate(1.0) for _ in choices.answers] for _ in turns]

    def _call(self, turns: Sequence[ChatTurn], watch: Watch | None) -> None:
        self.calls.append(len(turns))
        self.usage.requests += len(turns)
        self.usage.tokens += 3 * len(turns)
        if watch is not None:
            watch(len(turns), len(turns), 1.0)


def turns(count: int) -> list[ChatTurn]:
    return [ChatTurn(f"turn {number}") for number in range(count)]


EXACT = part_size(1, GRAIN.written, pods=1, is_exact=True)
"""Texts of a part on a CPU."""


@dataclass
class Rollout:
    """Pods with one folder: the first one asks."""

    folder: Path
    pods: int
    is_exact: bool = True
    models: dict[int, BatchedModel] = field(default_factory=dict)

    def model(self, pod: int) -> BatchedModel:
        return self.models.setdefault(pod, BatchedModel())

    def asking(self) -> SharedModel:
        return SharedModel(self.model(0), Sharing(self.pods, Exchange(self.folder, 0), self._pause), self.is_exact)

    def help(self, pod: int) -> bool:
        """One look of a pod that waits; whether it has answered a part."""
        exchange = Exchange(self.folder, pod)
        batch = exchange.find()
        if batch is None:
            return False
        for part in exchange.take(batch, 1):
            exchange.answer(batch, part, answer(self.model(pod), batch.select([part]), None))
            return True
        return False

    def _pause(self, _seconds: float) -> None:
        time.sleep(0.002)  # between two looks at the folder

    @contextmanager
    def helpers(self) -> Iterator[None]:
        """All other pods help, each in a thread."""
        ended = threading.Event()

        def work(pod: int) -> None:
            while not ended.wait(0.002):
                self.help(pod)

        threads = [threading.Thread(target=work, args=(pod,)) for pod in range(1, self.pods)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def ask(model: SharedModel, count: int) -> tuple[list[Completion | None], list[list[float]]]:
    written = model.write(turns(count), SAMPLING, seeds=list(range(count)), watch=None)
    return written, model.choose(turns(4 * count), DIGITS, None)


@pytest.mark.parametrize("pods", [2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, EXACT, 5 * EXACT + 7])
def test_any_number_of_pods_gives_the_answers_of_one(tmp_path: Path, pods: int, count: int) -> None:
    alone, many = Rollout(tmp_path / "alone", 1), Rollout(tmp_path / "many", pods)
    expected, usage = ask(alone.asking(), count), alone.model(0).usage
    with many.helpers():
        asking = many.asking()
        assert ask(asking, count) == expected
    assert asking.usage == usage
    assert not (tmp_path / "alone").exists()
    assert sum(len(model.calls) for model in many.models.values()) >= len(alone.model(0).calls)


def test_a_small_batch_is_not_worth_sharing(tmp_path: Path) -> None:
    pods = Rollout(tmp_path, 8)
    ask(pods.asking(), EXACT)
    assert not list(tmp_path.iterdir())
    assert pods.model(0).calls == [EXACT, 4 * EXACT]


def test_a_gpu_answers_in_one_call_what_nobody_has_begun(tmp_path: Path) -> None:
    """No more pods come: after its own part the pod that asks takes all that is left."""
    pods, count = Rollout(tmp_path, 4, is_exact=False), 8 * GRAIN.written
    asking = pods.asking()
    found = asking.write(turns(count), SAMPLING, seeds=list(range(count)), watch=None)
    assert [completion.text.rpartition(" ")[0] for completion in found if completion] == [
        turn.message for turn in turns(count)
    ]
    assert pods.model(0).calls == [count / 4, 3 * count / 4]
    assert Rollout(tmp_path, 1, is_exact=False).asking()._size(turns(count), GRAIN.written) == count


@pytest.mark.parametrize("is_exact", [True, False])
def test_what_a_pod_has_begun_and_does_not_answer_is_answered_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_exact: bool
) -> None:
    monkeypatch.setattr(shared_model, "_PATIENCE_SECONDS", 0.01)
    pods, count = Rollout(tmp_path, 4, is_exact=is_exact), 8 * (EXACT if is_exact else GRAIN.written)
    begun = threading.Event()

    def begins(_turns: Sequence[ChatTurn], _watch: Watch | None) -> None:
        """While the pod that asks is at its first part, another one takes a part and dies."""
        if not begun.is_set():
            begun.set()
            exchange = Exchange(tmp_path, 1)
            batch = exchange.find()
            assert batch is not None
            assert exchange.take(batch, 1) == [1]

    monkeypatch.setattr(pods.model(0), "_call", begins)
    found = pods.asking().write(turns(count), SAMPLING, seeds=list(range(count)), watch=None)
    assert begun.is_set()
    assert len(found) == count
    assert None not in found


def test_an_attempt_finds_what_was_answered_to_the_one_before(tmp_path: Path) -> None:
    first, count = Rollout(tmp_path, 2), 4 * EXACT
    expected = Rollout(tmp_path / "alone", 1).asking().write(turns(count), SAMPLING, seeds=range(count), watch=None)

    def stops(_done: int, _total: int, _rate: float) -> None:
        while first.help(1):
            pass
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.asking().write(turns(count), SAMPLING, seeds=range(count), watch=stops)
    assert len(list(tmp_path.glob("*.answers.json"))) == 3
    second = Rollout(tmp_path, 2)
    other = second.asking().write(turns(count - 1), SAMPLING, seeds=range(count - 1), watch=None)
    assert second.model(0).calls, "another batch has other answers"
    assert other != expected
    third = Rollout(tmp_path, 2)
    assert third.asking().write(turns(count), SAMPLING, seeds=range(count), watch=None) == expected
    assert third.model(0).calls == [EXACT], "the part that the first attempt was at"


def test_damaged_answers_are_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_model, "_PATIENCE_SECONDS", 0.01)
    pods, count = Rollout(tmp_path, 2), 3 * EXACT

    def damages(_done: int, _total: int, _rate: float) -> None:
        while pods.help(1):
            pass
        whole, short = sorted(tmp_path.glob("*.answers.json"))
        whole.write_bytes(whole.read_bytes()[:100])
        answers = Answers.model_validate_json(short.read_bytes())
        short.write_bytes(answers.cut([3])[0].to_json().encode())

    expected = Rollout(tmp_path / "alone", 1).asking().write(turns(count), SAMPLING, seeds=range(count), watch=None)
    watch: list[Watch] = [damages]
    found = pods.asking().write(
        turns(count), SAMPLING, seeds=range(count), watch=lambda *state: watch.pop()(*state) if watch else None
    )
    assert found == expected


def test_the_last_pod_removes_what_a_slow_one_has_left(tmp_path: Path) -> None:
    folder = tmp_path / "prompts-leases" / "digest"
    pods, count = Rollout(folder, 2), 3 * EXACT
    late = Exchange(folder, 1)
    batch = Batch(policy="base", size=EXACT, turns=tuple(turns(count)), sampling=SAMPLING, seeds=(0,) * count)
    with late.offered(batch):
        assert late.take(batch, 1) == [0]
        Exchange(folder, 0).close()
    assert not folder.parent.exists()
    late.answer(batch, 0, answer(pods.model(1), batch.select([0]), None))
    late.close()
    assert not folder.parent.exists()


def test_progress_only_rises_and_ends_at_the_whole(tmp_path: Path) -> None:
    seen: list[float] = []
    Rollout(tmp_path, 1).asking().write(
        turns(100), SAMPLING, seeds=range(100), watch=lambda done, total, _: seen.append(done / total)
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.text())
def test_answers_come_through_a_file_to_the_last_bit(values: list[float], text: str) -> None:
    given_ = Answers(
        written=(Completion("o", text, finished=False, token_ids=(1, 2)), None),
        chosen=(tuple(values),),
        usage=Usage(1, 2, 3, 4),
    )
    assert Answers.model_validate_json(given_.to_json().encode()) == given_


@given(turns=st.integers(1, 5000), pods=st.integers(1, 64))
def test_a_part_is_never_smaller_than_the_grain_and_a_gpu_has_one(turns: int, pods: int) -> None:
    assert part_size(turns, 32, pods=pods, is_exact=True) == part_size(1, 32, pods=1, is_exact=True) >= 32
    size = part_size(turns, 32, pods=pods, is_exact=False)
    assert size >= 32
    assert -(-turns // size) <= pods
