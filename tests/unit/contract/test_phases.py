"""The line of a stage's log that says its phases is what is read back."""

from dynalign_contract.phases import Phase, describe_phases, read_phases


def test_what_is_described_is_read_back() -> None:
    seconds = {phase: float(number) for number, phase in enumerate(Phase)}
    log = f"10:00 INFO begun\n10:01 INFO dynalign.stage {describe_phases(seconds)}\nlater, work 3.00\n"
    assert read_phases(log) == seconds


def test_of_several_attempts_in_one_log_the_last_one_counts() -> None:
    log = "\n".join(describe_phases({Phase.ENGINE: value}) for value in (1.0, 2.5))
    assert read_phases(log) == {Phase.ENGINE: 2.5}


def test_a_log_without_the_line_says_nothing() -> None:
    assert read_phases("killed") == {}
