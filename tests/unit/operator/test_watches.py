"""What a watch tells goes into the store; the run comes onto the queue when it is news."""

import asyncio
from typing import Any

import kopf
import pytest

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.clusters.kubernetes.transitions import Transitions
from dynalign_operator.clusters.kubernetes.watches import NoDiffs, register

RUN = RunKey("team", "r")


def a_job(version: int, run: str = "r") -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "dynalign", "dynalign.io/run": run}
    metadata = {"name": "r-fetch-a1", "namespace": "team", "uid": "u", "resourceVersion": str(version)}
    return {"metadata": {**metadata, "labels": labels}, "spec": {}, "status": {}}


class Watched:
    """The handler of Jobs with the store behind it."""

    def __init__(self) -> None:
        self.store, self.queued, self.recorded = Store(), list[RunKey](), list[Kind]()
        registry = kopf.OperatorRegistry()
        register(registry, self.store, self.queued.append, Transitions(lambda _: None), self.recorded.append)
        note: Any  # kopf calls it with more arguments than it takes here
        (note,) = (h.fn for h in registry._watching.get_all_handlers() if "note_job" in h.id)
        self._note = note

    def tell(self, kind: str | None, job: dict[str, Any]) -> list[RunKey]:
        """Deliver an event; returns what came onto the queue."""
        self.queued.clear()
        asyncio.run(self._note(event={"type": kind, "object": job}))
        return list(self.queued)


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", None])
def test_an_own_write_that_comes_back_is_no_news(kind: str | None) -> None:
    watched = Watched()
    watched.store.put(Kind.JOB, a_job(7))
    assert watched.tell(kind, a_job(7)) == []
    assert watched.tell("MODIFIED", a_job(8)) == [RUN]
    assert watched.recorded == [Kind.JOB] * 2


def test_a_first_listing_and_a_deletion_are_news() -> None:
    watched = Watched()
    assert watched.tell(None, a_job(7)) == [RUN]
    assert watched.tell("DELETED", a_job(7)) == [RUN]
    assert watched.store.keys(Kind.JOB) == []


def test_both_runs_hear_of_a_label_that_names_another() -> None:
    watched = Watched()
    watched.tell(None, a_job(7))
    assert watched.tell("MODIFIED", a_job(8, "other")) == [RunKey("team", "other"), RUN]


def test_kopf_copies_no_object_to_compare_it() -> None:
    body = kopf.Body({"spec": {"iterations": 3}})
    assert NoDiffs().build(body=body) == NoDiffs().fetch(body=body) == {}
