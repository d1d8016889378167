"""What the live page is given: the list as it is searched, filtered and cut, and one run's page."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.api.status import Phase, ReportStatus
from dynalign_operator.clusters.run_source import ListedRun, RunEvent, RunList, RunPlace, RunSnapshot
from dynalign_operator.planning.plan import EventType
from dynalign_operator.ui.approvals import check_decision
from dynalign_operator.ui.changes import ChangeRefusedError, plan_change
from dynalign_operator.ui.headlines import fraction_of
from dynalign_operator.ui.list_views import ListQuery, build_list
from dynalign_operator.ui.models import PAGE_SIZE, Change, ChangeRequest, DecisionRequest, RunPage, Tone
from dynalign_operator.ui.reported import report_in_cluster
from dynalign_operator.ui.run_keys import RunKey
from dynalign_operator.ui.run_views import Seen, build_page
from support.builders import a_run
from support.live_runs import LiveRun, a_live_run
from support.simulation import fail

NOW = datetime.now(UTC)
HIDDEN = "\x1b[31mred\u202e"


def listed(live: LiveRun, *, is_driven: bool = True, namespace: str = "team") -> ListedRun:
    run = live.simulation.run
    return ListedRun(run.metadata.name, namespace, run.status, run, is_cluster=True, is_driven=is_driven)


def page_of(live: LiveRun, *events: RunEvent, is_cluster: bool = True) -> RunPage:
    simulation = live.simulation
    place = RunPlace("namespace team", "PersistentVolumeClaim r, folder /r", "r -n team", is_cluster)
    snapshot = RunSnapshot(simulation.run, place, tuple(simulation.jobs.values()))
    one = listed(live)
    return build_page(Seen(one if is_cluster else replace(one, is_cluster=False, folder="f"), snapshot, events), NOW)


@pytest.fixture(scope="module")
def runs() -> RunList:
    done, failed = a_live_run("done").finished(), a_live_run("bad", run=a_run().with_policy(retries=0)).failing(12)
    half, held = a_live_run("half").until(Stage.JUDGE, 1), a_live_run("held", run=a_run().suspended())
    held.simulation.plan()
    broken = ListedRun("broken", "team", held.simulation.run.status, None, is_cluster=True, problem="spec.x: no.")
    return RunList((listed(done), listed(failed), listed(half), listed(held, namespace="other"), broken), ("a note",))


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (ListQuery(), ["half", "held", "broken", "bad", "done"]),
        (ListQuery(words="TEAM"), ["half", "broken", "bad", "done"]),
        (ListQuery(words="team judge"), ["half"]),
        (ListQuery(words="unfit"), ["bad"]),
        (ListQuery(words="not valid"), ["broken"]),
        (ListQuery(phase="Failed"), ["bad"]),
        (ListQuery(words="team", phase="Suspended"), ["broken"]),
        (ListQuery(words="nowhere"), []),
        (ListQuery(phase="<script>"), []),
        (ListQuery(page=99), ["half", "held", "broken", "bad", "done"]),
    ],
    ids=str,
)
def test_the_list_is_searched_filtered_and_ordered(runs: RunList, query: ListQuery, names: list[str]) -> None:
    page = build_list(runs, query, NOW)
    assert sorted(row.name for row in page.rows) == sorted(names)
    order = [list(Phase).index(Phase(row.phase)) for row in page.rows]
    assert [row.name for row in page.rows][: 1 if names else 0] == names[:1]
    assert len(set(order)) == len([o for i, o in enumerate(order) if i == 0 or order[i - 1] != o])  # phases together
    assert (page.matched, page.total, page.notes) == (len(names), 5, ("a note",))


def test_the_list_says_of_each_run_where_it_stands_and_what_to_do(runs: RunList) -> None:
    rows = {row.name: row for row in build_list(runs, ListQuery(), NOW).rows}
    assert (rows["done"].tone, rows["done"].fraction, rows["done"].to_do) == (Tone.GOOD, 1.0, "")
    assert rows["done"].win_rate.startswith("0.81 (")
    assert (rows["bad"].tone, rows["bad"].remark) == (Tone.BAD, "Unfit")
    assert rows["bad"].to_do.startswith("Remove the cause.")
    assert (rows["half"].iteration, rows["half"].stage, rows["half"].tone) == ("2/5", "judge", Tone.PLAIN)
    assert 0 < rows["half"].fraction < 0.5
    assert "kubectl patch ar held" in rows["held"].to_do
    assert rows["broken"].sentence == "spec.x: no."


def test_five_hundred_runs_come_in_pages() -> None:
    one = listed(a_live_run("r").until(Stage.TRAIN, 0))
    many = RunList(tuple(replace(one, name=f"r{number:03}") for number in range(500)))
    pages = [build_list(many, ListQuery(page=number), NOW) for number in range(1, 11)]
    assert [len(page.rows) for page in pages] == [PAGE_SIZE] * 10
    assert len({row.key for page in pages for row in page.rows}) == 500
    assert max(len(page.to_json()) for page in pages) < 100_000
    assert pages[0].phases["Running"] == 500


def test_the_fraction_never_falls_while_the_run_moves_on() -> None:
    live, seen = a_live_run("r", run=a_run().with_iterations(12)), [0.0]
    for iteration in range(12):
        status = live.until(Stage.EVALUATE, iteration).simulation.run.status
        seen.append(fraction_of(status, 12))
    assert seen == sorted(set(seen))
    assert not live.simulation.run.status.iterations[0].stages  # the status no longer holds them
    assert fraction_of(live.finished().simulation.run.status, 12) == 1.0


def test_the_page_has_what_the_report_shows_and_what_describe_says() -> None:
    page = page_of(a_live_run("r").until(Stage.TRAIN, 3))
    assert [one["title"] for one in page.charts["worked"]][:2] == [
        "Held-out win rate against the base model",
        "Reward of held-out answers",
    ]
    (line,) = page.charts["worked"][0]["lines"]
    assert line["x"] == [0, 1, 2]
    assert line["low"][2] < line["y"][2] < line["high"][2]
    titles = {one["title"] for found in page.charts.values() for one in found}
    assert {"Training reward by aspect", "KL divergence", "Length of answers", "Capability, change"} <= titles
    assert page.findings[0].sentence.startswith("It beats the base model")
    assert page.does[0].startswith("Job r-i003-train-a1 runs train of iteration 3, attempt 1")
    assert [one.index for one in page.iterations] == [3, 2, 1, 0]
    assert [one.is_best for one in page.iterations] == [False, True, False, False]
    assert page.iterations[0].stages[-1].phase == "Running"
    assert page.iterations[1].stages[0].seconds == 60


def test_old_iterations_keep_their_points_when_the_status_drops_their_stages() -> None:
    page = page_of(a_live_run("r", run=a_run().with_iterations(12)).finished())
    assert page.iterations[-1].stages == ()
    (line,) = page.charts["worked"][0]["lines"]
    assert line["x"] == list(range(12))


def test_texts_from_outside_are_made_visible() -> None:
    event = RunEvent(NOW, EventType.WARNING, "Odd", HIDDEN)
    page = page_of(a_live_run("r").until(Stage.TRAIN, 0), event)
    assert page.events[0].message == "⟨U+001B⟩[31mred⟨U+202E⟩"
    assert page.events[0].is_warning


@pytest.mark.parametrize("text", ["local:runs/r", "cluster:team/r", "local:a b:c/ü"])
def test_a_key_names_its_run(text: str) -> None:
    assert str(RunKey.parse(text)) == text


@pytest.mark.parametrize("text", ["", "local:", "cluster:", "cluster:team", "cluster:/r", "cluster:team/", "file:x"])
def test_what_is_no_key_names_nothing(text: str) -> None:
    assert RunKey.parse(text) is None


def test_the_report_of_a_run_of_a_cluster_is_said_to_be_on_its_volume() -> None:
    run = a_live_run("r").until(Stage.TRAIN, 0).simulation.run
    snapshot = RunSnapshot(run, RunPlace("namespace team", "PersistentVolumeClaim r, folder /r", "r -n team", True))
    status = run.status.evolve(report=None)
    none = replace(snapshot, run=run.model_copy(update={"status": status}))
    assert report_in_cluster(none).note.startswith("There is no report yet")
    status = run.status.evolve(report=ReportStatus(path="report.html", iteration=2))
    note = report_in_cluster(replace(snapshot, run=run.model_copy(update={"status": status}))).note
    assert note == (
        "Its report, to iteration 2, is report.html on PersistentVolumeClaim r, folder /r: copy it from there."
    )


def wish(change: Change, generation: int = 1, iterations: int | None = None) -> ChangeRequest:
    return ChangeRequest(key="cluster:team/r", change=change, generation=generation, iterations=iterations)


def test_confirmed_changes_set_one_field() -> None:
    run, held = a_run().with_iterations(3).build(), a_run().suspended().build()
    assert plan_change(run, wish(Change.SUSPEND)) == {"suspend": True}
    assert plan_change(held, wish(Change.RESUME)) == {"suspend": False}
    assert plan_change(run, wish(Change.ITERATIONS, iterations=4)) == {"iterations": 4}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (wish(Change.SUSPEND, generation=2), "has been changed since the page was drawn"),
        (wish(Change.RESUME), "is not suspended"),
        (wish(Change.ITERATIONS, iterations=2), "give a larger number"),
        (wish(Change.ITERATIONS), "give a larger number"),
    ],
)
def test_changes_that_make_no_sense_are_refused(asked: ChangeRequest, words: str) -> None:
    with pytest.raises(ChangeRefusedError, match=words):
        plan_change(a_run().build(), asked)


def test_the_page_offers_what_can_be_changed() -> None:
    running = page_of(a_live_run("r").until(Stage.TRAIN, 0)).actions
    assert (running.can_suspend, running.can_resume, running.can_add_iterations) == (True, False, True)
    done = page_of(a_live_run("r").finished()).actions
    assert (done.can_suspend, done.can_resume, done.can_add_iterations) == (False, False, True)
    local = page_of(a_live_run("r").until(Stage.TRAIN, 0), is_cluster=False).actions
    assert (local.can_suspend, local.can_add_iterations) == (False, False)
    assert "Ctrl-C" in local.note


def gated() -> LiveRun:
    return a_live_run("r", run=a_run().with_policy(approval=["BeforeTrain"])).awaiting_approval()


def decision(live: LiveRun, **changes: object) -> DecisionRequest:
    awaited = live.simulation.run.status.awaited_approval
    assert awaited is not None
    fields = {"gate": awaited.gate, "iteration": awaited.iteration, "artifact": awaited.artifact}
    return DecisionRequest.model_validate({"key": "cluster:team/r", "decision": "Approved", **fields, **changes})


def snapshot_in_cluster(live: LiveRun) -> RunSnapshot:
    return RunSnapshot(live.simulation.run, RunPlace("namespace team", "claim", "r -n team", is_cluster=True))


def test_what_waits_for_approval_is_shown_and_decided() -> None:
    live = gated()
    shown = page_of(live).approval
    assert shown is not None
    assert (shown.gate, shown.iteration, shown.subject) == (
        "BeforeTrain",
        0,
        "the judged answers that iteration 0 would train on",
    )
    assert check_decision(snapshot_in_cluster(live), decision(live)) == live.simulation.run.status.awaited_approval
    assert page_of(a_live_run("r").until(Stage.TRAIN, 0)).approval is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iteration": 1}, "not what the page showed"),
        ({"artifact": "sha256:other"}, "not what the page showed"),
        ({"gate": "BeforeExport"}, "not what the page showed"),
        ({"decision": "Rejected", "reason": " "}, "needs a reason"),
    ],
    ids=str,
)
def test_a_decision_about_something_else_is_refused(changes: dict[str, object], words: str) -> None:
    live = gated()
    with pytest.raises(ChangeRefusedError, match=words):
        check_decision(snapshot_in_cluster(live), decision(live, **changes))


def test_a_decision_about_a_run_that_waits_no_more_is_refused() -> None:
    wanted = decision(gated())
    with pytest.raises(ChangeRefusedError, match="waits for no approval any more"):
        check_decision(snapshot_in_cluster(a_live_run("r").until(Stage.TRAIN, 0)), wanted)


def test_the_page_says_what_the_runs_own_report_covers_or_why_it_failed() -> None:
    live = a_live_run("r").until(Stage.GENERATE, 3)
    report = page_of(live).report
    assert report.sentence == "The run's report covers the iterations up to 2."
    assert report.ended_at is not None
    failing = a_live_run("r")
    failing.simulation.report_fate = lambda job: fail(job, 10)
    report = page_of(failing.until(Stage.GENERATE, 2)).report
    assert report.sentence.startswith("The report of the iterations up to 1 was not written: ")
    assert report.is_trouble
    assert page_of(a_live_run("r").until(Stage.TRAIN, 0)).report.sentence == ""
