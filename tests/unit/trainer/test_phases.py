"""Phases of a stage's process: each lasts from the one before to its own end, and clocks may step back."""

import subprocess
import sys
import time

import pytest

from dynalign_contract.phases import Phase
from dynalign_contract.pod_paths import Variable
from dynalign_trainer.runtime.phases import Phases, process_start, start_of


def test_a_process_began_between_its_start_and_its_first_words() -> None:
    """The kernel counts in hundredths of a second."""
    before = time.time()
    script = "from dynalign_trainer.runtime.phases import process_start; print(process_start(), flush=True)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        started = time.time()
        assert process.stdout is not None
        began = float(process.stdout.readline())
    assert before - 0.02 <= began <= started + 0.02


@pytest.mark.parametrize("asked", ["", "soon", "nan", "-5", "1e400"])
def test_a_process_began_when_it_was_created(asked: str) -> None:
    assert start_of({Variable.ASKED_AT: asked}) == pytest.approx(process_start(), abs=0.01)
    assert start_of({}) == pytest.approx(process_start(), abs=0.01)


def test_a_stage_that_waited_for_the_preload_server_began_when_it_was_asked_for() -> None:
    created = process_start()
    assert start_of({Variable.ASKED_AT: str(created - 12)}) == pytest.approx(created - 12)
    assert start_of({Variable.ASKED_AT: str(created + 12)}) == pytest.approx(created, abs=0.01)


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
