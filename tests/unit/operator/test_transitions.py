"""The seconds between two Jobs, from the events that an operator hears."""

from typing import Any

import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.store import Kind
from dynalign_operator.clusters.kubernetes.transitions import Transitions
from dynalign_operator.manifests.labels import JobLabels, job_labels

RUN = RunKey("team", "r")


class Ear:
    """Hears events at times of the test's choosing."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[float] = []
        self.transitions = Transitions(self.told.append, lambda: self.now)

    def job(
        self,
        at: float,
        event: str | None,
        name: str,
        *,
        complete: bool = False,
        run: RunKey = RUN,
        stage: Stage = Stage.TRAIN,
    ) -> None:
        conditions = [{"type": "Complete", "status": "True"}] if complete else []
        labels = job_labels(JobLabels(run.name, stage, None, 1))
        job = {"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}}
        self._hear(at, Kind.JOB, run, event, job)

    def run(self, at: float, event: str, phase: str) -> None:
        self._hear(at, Kind.RUN, RUN, event, {"metadata": {"name": RUN.name}, "status": {"phase": phase}})

    def _hear(self, at: float, kind: Kind, run: RunKey, event: str | None, thing: dict[str, Any]) -> None:
        self.now = at
        self.transitions.note(kind, run, {"type": event, "object": thing})


def test_from_the_completion_to_the_next_job() -> None:
    ear = Ear()
    ear.job(1, "ADDED", "fetch")
    ear.job(2, "MODIFIED", "fetch")
    ear.job(3, "MODIFIED", "fetch", complete=True)
    ear.run(4, "MODIFIED", "Running")
    ear.job(5, "MODIFIED", "fetch", complete=True)
    ear.job(7, "ADDED", "prompts")
    assert ear.told == [4.0]


def test_runs_do_not_mix() -> None:
    ear, other = Ear(), RunKey("team", "other")
    ear.job(1, "ADDED", "a")
    ear.job(2, "MODIFIED", "a", complete=True)
    ear.job(3, "ADDED", "b", run=other)
    assert ear.told == []


def test_a_report_beside_the_stages_begins_and_ends_nothing() -> None:
    ear = Ear()
    ear.job(1, "ADDED", "a")
    ear.job(2, "MODIFIED", "a", complete=True)
    ear.job(3, "ADDED", "report", stage=Stage.REPORT)
    ear.job(4, "MODIFIED", "report", complete=True, stage=Stage.REPORT)
    ear.job(7, "ADDED", "b")
    assert ear.told == [5.0]


def test_a_job_that_completed_long_ago_and_is_removed_now_begins_nothing() -> None:
    ear = Ear()
    ear.job(1, "ADDED", "a")
    ear.job(2, "MODIFIED", "a", complete=True)
    ear.job(3, "ADDED", "b")
    ear.job(4, "MODIFIED", "a", complete=True)
    ear.job(5, "DELETED", "a", complete=True)
    ear.job(9, "ADDED", "c")
    assert ear.told == [1.0]


@pytest.mark.parametrize(
    ("event", "phase"), [("MODIFIED", "Suspended"), ("MODIFIED", "Failed"), ("DELETED", "Running")]
)
def test_a_run_that_waits_for_its_user_is_in_no_transition(event: str, phase: str) -> None:
    ear = Ear()
    ear.job(1, "ADDED", "a")
    ear.job(2, "MODIFIED", "a", complete=True)
    ear.run(3, event, phase)
    ear.job(100, "ADDED", "b")
    assert ear.told == []


def test_an_operator_that_starts_anew_measures_only_what_it_has_heard() -> None:
    ear = Ear()
    ear.job(1, None, "a", complete=True)
    ear.job(2, "ADDED", "b")
    ear.job(3, "MODIFIED", "b", complete=True)
    ear.job(5, "ADDED", "c")
    assert ear.told == [2.0]


def test_a_failed_job_and_its_repetition_are_no_transition() -> None:
    ear = Ear()
    ear.job(1, "ADDED", "a-a1")
    ear.job(2, "MODIFIED", "a-a1")
    ear.job(30, "ADDED", "a-a2")
    assert ear.told == []
