"""Checkpoints by steps and by time, and on SIGTERM where there is time for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.settings import Checkpoints, TrainingSettings
from dynalign_trainer.train.pace import Pace


class Clock:
    """A clock that tests set, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def saved_after(rules: Checkpoints, steps: int, *, step: float, save: float = 0.0) -> list[int]:
    """The steps after which training with steps and checkpoints of this many seconds saves."""
    clock = Clock()
    pace, found = Pace(rules, clock), []
    for done in range(1, steps + 1):
        clock.now += step
        pace.end_step()
        if pace.is_due(done):
            pace.begin_saving()
            clock.now += save
            pace.end_saving()
            found.append(done)
    return found


@pytest.mark.parametrize(
    ("written", "saved"),
    [
        pytest.param({}, [9, 18], id="by time: the tenth step would end after ten minutes and a second"),
        pytest.param({"checkpointMinutes": 3}, [2, 4, 6, 8, 10, 12, 14, 16, 18], id="a shorter time"),
        pytest.param({"checkpointSteps": 8}, [8, 16], id="by steps alone"),
        pytest.param({"checkpointSteps": 8, "checkpointMinutes": 5}, [4, 8, 12, 16], id="both"),
    ],
)
def test_the_settings_say_when(written: dict[str, float], saved: list[int]) -> None:
    rules = TrainingSettings.model_validate(written).checkpoints
    assert saved_after(rules, 18, step=61, save=30) == saved


@given(
    minutes=st.floats(0.5, 60), steps=st.lists(st.floats(0.1, 1000), min_size=1, max_size=60), save=st.floats(0, 500)
)
def test_what_a_kill_loses_is_never_more_than_the_limit_or_one_step(
    minutes: float, steps: list[float], save: float
) -> None:
    clock = Clock()
    pace, since = Pace(Checkpoints(minutes=minutes), clock), 0.0
    longest = 0.0
    for done, seconds in enumerate(steps, 1):
        clock.now += seconds
        since += seconds
        # A step that is longer than all before it cannot be foreseen.
        assert since <= 60 * minutes + 1e-6 or seconds > longest or since == seconds
        longest = max(longest, seconds)
        pace.end_step()
        if pace.is_due(done):
            pace.begin_saving()
            clock.now += save
            pace.end_saving()
            since = 0.0


def test_the_time_of_checkpoints_is_no_time_of_steps() -> None:
    assert saved_after(Checkpoints(minutes=10), 40, step=60, save=3000) == [9, 18, 27, 36]


def test_a_checkpoint_on_sigterm_is_begun_only_where_it_becomes_whole() -> None:
    clock = Clock()
    pace = Pace(Checkpoints(minutes=10), clock)
    assert pace.fits(5.0), "how long one takes is not known before the first"
    pace.begin_saving()
    clock.now += 60
    pace.end_saving()
    assert pace.fits(90.0)
    assert not pace.fits(89.0)
    assert pace.fits(None)
