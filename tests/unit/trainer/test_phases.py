"""Phases of a stage's process: each lasts from the one before to its own end, and clocks may step back."""

import time

import psutil
import pytest

from dynalign_contract.phases import Phase
from dynalign_contract.pod_paths import Variable
from dynalign_trainer.runtime.phases import Phases, start_of


@pytest.mark.parametrize("asked", ["", "soon", "nan", "-5", "1e400"])
def test_a_process_began_when_it_was_created(asked: str) -> None:
    assert start_of({Variable.ASKED_AT: asked}) == psutil.Process().create_time()
    assert start_of({}) == psutil.Process().create_time()


def test_a_stage_that_waited_for_the_preload_server_began_when_it_was_asked_for() -> None:
    created = psutil.Process().create_time()
    assert start_of({Variable.ASKED_AT: str(created - 12)}) == pytest.approx(created - 12)
    assert start_of({Variable.ASKED_AT: str(created + 12)}) == created


def test_each_phase_begins_where_the_one_before_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    phases = Phases()
    now = [phases.start + 2]
    monkeypatch.setattr(time, "time", lambda: now[0])
    phases.end(Phase.INTERPRETER)
    now[0] += 3
    phases.once(Phase.ENGINE)
    now[0] += 4
    phases.once(Phase.ENGINE)
    phases.end(Phase.WORK)
    now[0] -= 100
    phases.end(Phase.WRITING)
    now[0] += 105
    phases.end(Phase.WORK)
    assert phases.seconds == pytest.approx(
        {Phase.INTERPRETER: 2, Phase.ENGINE: 3, Phase.WORK: 9, Phase.WRITING: 0}, abs=1e-3
    )
