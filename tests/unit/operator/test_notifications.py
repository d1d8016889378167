"""Which notifications are due, what they look like on the wire, where they may go, and until when they are tried."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from dynalign_contract.stages import Stage
from dynalign_operator.api.notifications import Notification, NotificationOutcome, NotifyEvent
from dynalign_operator.api.status import AlignmentRunStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.deliveries import Deliveries
from dynalign_operator.notifying import sender as sending
from dynalign_operator.notifying.message import BadKeyError, build_body, build_headers
from dynalign_operator.notifying.notifier import KeyNotFoundError, Notifier
from dynalign_operator.notifying.sender import Answer, Reply, open_sender
from dynalign_operator.planning.notifications import (
    KEPT_NOTIFICATIONS,
    DueNotification,
    due_notifications,
    with_notifications,
)
from dynalign_operator.planning.planner import plan
from support.builders import T0, a_run
from support.simulation import SETTINGS, Simulation, fail, succeed
from support.webhooks import Answer as Answering
from support.webhooks import accept, always, serve_receiver

HOOK = {"url": "https://hooks.example.com/x", "secretRef": {"name": "hook", "key": "key"}}
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RUN = RunKey("team", "r")


def of_run(*hooks: dict[str, Any], iterations: int = 1, **spec: Any) -> Simulation:
    builder = a_run().with_iterations(iterations).with_spec(notify=list(hooks or (HOOK,)), **spec).stored()
    return Simulation(builder.build())


def events(run: AlignmentRun) -> list[NotifyEvent]:
    return [due.occurrence.event for due in due_notifications(run)]


def over(run: AlignmentRun, outcome: NotificationOutcome = NotificationOutcome.DELIVERED) -> list[Notification]:
    return [
        Notification(id=due.id, event=due.occurrence.event, outcome=outcome, time=T0) for due in due_notifications(run)
    ]


def ended(fate: Any = succeed) -> AlignmentRun:
    return of_run().finish(fate).run


def held() -> AlignmentRun:
    simulation = of_run(objective={"configMapRef": {"name": "missing"}})
    simulation.plan()
    return simulation.run


def awaiting() -> AlignmentRun:
    simulation = of_run(policy={"approval": ["BeforeTrain"]})
    while simulation.run.status.awaited_approval is None:
        simulation.step(succeed)
    return simulation.run


def unfit() -> AlignmentRun:
    simulation = of_run()
    for _ in range(12):
        simulation.step(lambda job: succeed(job, unfit=1.0) if job.stage is Stage.JUDGE else succeed(job))
        if simulation.run.status.stage is Stage.EVALUATE:
            break
    return simulation.run


def regressed() -> AlignmentRun:
    simulation = of_run(iterations=2)
    while simulation.run.status.iteration != 1:
        simulation.step(lambda job: succeed(job, regressed=1.0) if job.stage is Stage.EVALUATE else succeed(job))
    return simulation.run


DUE: dict[str, tuple[Callable[[], AlignmentRun], list[NotifyEvent]]] = {
    "a new run": (lambda: of_run().run, []),
    "a run that works": (lambda: of_run().until(Stage.TRAIN, 0).run, []),
    "a run that succeeded": (ended, [NotifyEvent.SUCCEEDED]),
    "a run that failed": (lambda: ended(lambda job: fail(job, 10)), [NotifyEvent.FAILED]),
    "a run that is held": (held, [NotifyEvent.STALLED]),
    "a run that awaits approval": (awaiting, [NotifyEvent.AWAITING_APPROVAL]),
    "a judge that is unfit": (unfit, [NotifyEvent.JUDGE_UNFIT]),
    "a model that got worse": (regressed, [NotifyEvent.REGRESSED]),
}


@pytest.mark.parametrize("case", DUE)
def test_what_is_due(case: str) -> None:
    make, expected = DUE[case]
    run = make()
    assert events(run) == expected
    stored = run.with_status(with_notifications(run, run.status, over(run)))
    assert events(stored) == [], "what is over is not sent again"
    assert events(run.model_copy(update={"spec": run.spec.model_copy(update={"notify": ()})})) == []


def test_every_event_is_told_by_some_state() -> None:
    assert {event for _, expected in DUE.values() for event in expected} == set(NotifyEvent)


def test_a_webhook_is_told_what_it_asks_for_alone() -> None:
    quiet = {**HOOK, "url": "https://other.example.com/x", "events": ["Failed"]}
    run = of_run(HOOK, quiet).finish(succeed).run
    assert [due.webhook.url for due in due_notifications(run)] == [HOOK["url"]]


def test_an_id_is_that_of_the_occurrence_and_the_address() -> None:
    both = of_run(HOOK, {**HOOK, "url": "https://other.example.com/x"}).finish(succeed).run
    ids = [due.id for due in due_notifications(both)]
    assert len(set(ids)) == 2
    again = AlignmentRun.model_validate_json(both.to_json())
    assert [due.id for due in due_notifications(again)] == ids, "after a restart too"
    assert next(due.id for due in due_notifications(ended())) == ids[0]


def test_a_run_without_webhooks_keeps_its_status() -> None:
    status = Simulation(a_run().build()).finish().run.status
    assert "notifications" not in json.loads(status.to_json())
    assert "notify" not in json.loads(a_run().build().spec.model_dump_json(by_alias=True))


def test_the_status_remembers_what_is_due_and_the_latest_of_the_rest() -> None:
    run = ended()
    known = over(run)
    old = [known[0].model_copy(update={"id": f"msg_{number}"}) for number in range(100)]
    kept = with_notifications(run, run.status, [*known, *old]).notifications
    assert [entry.id for entry in kept] == [known[0].id, *(f"msg_{n}" for n in range(100 - KEPT_NOTIFICATIONS, 100))]


def test_the_planner_stores_what_is_over_of_runs_that_have_ended_too() -> None:
    for fate in (succeed, lambda job: fail(job, 10)):
        simulation = of_run().finish(fate)
        found = over(simulation.run)
        observed = simulation.observed()
        decided = plan(replace(observed, notifications=tuple(found)), simulation.now, SETTINGS)
        assert decided.status == simulation.run.status.evolve(notifications=tuple(found))
        assert (decided.create, decided.delete, decided.events) == ((), (), ())


def signed(run: AlignmentRun, key: str = KEY) -> tuple[DueNotification, bytes, dict[str, str]]:
    (due,) = due_notifications(run)
    body = build_body(run, due)
    return due, body, dict(build_headers(due, body, key, datetime.now(UTC)))


@pytest.mark.parametrize("key", [KEY, "a plain text that is long enough"])
def test_the_signature_is_what_standard_webhooks_verifies(key: str) -> None:
    _, body, headers = signed(ended(), key)
    receiver = Webhook(key if key.startswith("whsec_") else key.encode())
    assert receiver.verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        receiver.verify(body + b" ", headers)


def test_the_body_is_a_cloud_event() -> None:
    due, body, headers = signed(ended(lambda job: fail(job, 10)))
    event = from_http_event(HTTPMessage(headers=headers, body=body))
    assert (event.get_id(), event.get_specversion()) == (due.id, "1.0")
    assert event.get_type() == "io.dynalign.run.failed"
    assert event.get_source() == "/apis/dynalign.io/v1alpha1/namespaces/team/alignmentruns/r"
    assert event.get_time() == due.occurrence.time
    data = event.get_data()
    assert isinstance(data, dict)
    assert (data["run"], data["reason"], data["phase"]) == ("r", "BadConfig", "Failed")


@pytest.mark.parametrize("key", ["", "short", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_key_that_cannot_sign_is_said_and_not_shown(key: str) -> None:
    with pytest.raises(BadKeyError) as found:
        signed(ended(), key)
    assert not key or key not in str(found.value)


async def posted(answer: Answering, path: str = "", *, loopback: bool = True) -> tuple[Reply, int]:
    async with serve_receiver(answer) as receiver, open_sender(loopback=loopback) as sender:
        reply = await sender.post(receiver.url + path, b"{}", {})
        return reply, len(receiver.received)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (accept, Answer.ACKNOWLEDGED),
        (always(200), Answer.ACKNOWLEDGED),
        (always(500), Answer.AGAIN),
        (always(404), Answer.AGAIN),
        (always(410), Answer.NEVER),
        (always(307, location="/elsewhere"), Answer.AGAIN),
        (always(301, location="http://169.254.169.254/latest"), Answer.AGAIN),
    ],
)
def test_what_an_answer_means(answer: Answering, expected: Answer) -> None:
    reply, requests = asyncio.run(posted(answer))
    assert reply.answer is expected
    assert requests == 1, "a redirect is not followed"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x",
        "http://[::1]:9/x",
        "http://localhost:9/x",
        "http://169.254.169.254/latest",
        "http://[::ffff:169.254.169.254]/latest",
    ],
)
def test_a_pod_sends_nothing_to_its_own_node_or_a_metadata_service(url: str) -> None:
    async def work() -> Reply:
        async with open_sender(loopback=False) as sender:
            return await sender.post(url, b"{}", {})

    reply = asyncio.run(work())
    assert reply.answer is not Answer.ACKNOWLEDGED
    assert "address" in reply.why


def test_nothing_reaches_a_loopback_server_from_a_pod() -> None:
    reply, requests = asyncio.run(posted(accept, loopback=False))
    assert (reply.answer, requests) == (Answer.NEVER, 0)


def test_a_server_that_hangs_or_drips_is_left_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "TIMEOUT_SECONDS", 0.3)

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    reply, _ = asyncio.run(posted(hang))
    assert reply.answer is Answer.AGAIN
    assert "no answer within" in reply.why


@dataclass
class Post:
    """A sender whose answers a test decides."""

    answers: list[Reply] = field(default_factory=list)
    hangs: set[str] = field(default_factory=set)
    sent: list[tuple[str, str]] = field(default_factory=list)
    """Address and id, in order."""

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> Reply:
        self.sent.append((url, headers["webhook-id"]))
        if url in self.hangs:
            await asyncio.Event().wait()
        return self.answers.pop(0) if self.answers else Reply(Answer.ACKNOWLEDGED)


@dataclass
class Desk:
    """A notifier with its neighbours, and a clock that sleeping moves."""

    runs: dict[RunKey, AlignmentRun]
    post: Post = field(default_factory=Post)
    deliveries: Deliveries = field(default_factory=Deliveries)
    woken: list[RunKey] = field(default_factory=list)
    now: datetime = T0 + timedelta(hours=3)
    key: str | None = KEY
    on_sleep: Callable[[], None] = lambda: None

    def notifier(self) -> Notifier:
        return Notifier(
            self.post,
            self.runs.get,
            self.read_key,
            self.deliveries,
            self.woken.append,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    async def read_key(self, run: AlignmentRun, due: DueNotification) -> str:
        if self.key is None:
            raise KeyNotFoundError("the Secret hook does not exist")
        return self.key

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.on_sleep()
        await asyncio.sleep(0)


def settle(desk: Desk) -> tuple[Notification, ...]:
    """Consider every run once and wait for the end; what is over of the run `r`."""

    async def work() -> None:
        notifier = desk.notifier()
        for key in desk.runs:
            notifier.consider(key)
            notifier.consider(key)
        await notifier.drain(30)

    asyncio.run(work())
    run = desk.runs.get(RUN)
    return desk.deliveries.take(RUN, run.status.notifications if run else ())


def test_it_is_sent_again_until_it_is_acknowledged_under_one_id() -> None:
    again = Reply(Answer.AGAIN, "the answer has the status 503")
    desk = Desk({RUN: ended()}, Post([again] * 5))
    (entry,) = settle(desk)
    assert entry.outcome is NotificationOutcome.DELIVERED
    assert len(desk.post.sent) == 6
    assert {name for _, name in desk.post.sent} == {entry.id}
    assert desk.woken == [RUN]
    assert desk.now - (T0 + timedelta(hours=3)) >= timedelta(minutes=20), "pauses grow"


@pytest.mark.parametrize(
    ("post", "key", "words"),
    [
        (Post([Reply(Answer.NEVER, "the answer has the status 410")]), KEY, "410"),
        (Post([Reply(Answer.AGAIN, "refused")] * 500), KEY, "refused"),
        (Post(), None, "does not exist"),
        (Post(), "short", "16"),
    ],
)
def test_it_is_given_up_after_a_day_or_where_nothing_more_is_wanted(post: Post, key: str | None, words: str) -> None:
    desk = Desk({RUN: ended()}, post, key=key)
    (entry,) = settle(desk)
    assert entry.outcome is NotificationOutcome.GAVE_UP
    assert words in entry.message


def test_what_was_acknowledged_is_not_sent_after_a_restart() -> None:
    run = ended()
    first = Desk({RUN: run})
    entries = settle(first)
    stored = run.with_status(with_notifications(run, run.status, entries))
    second = Desk({RUN: stored})
    assert settle(second) == ()
    assert second.post.sent == []


def test_what_has_passed_is_not_sent_any_more() -> None:
    run = awaiting()
    desk = Desk({RUN: run}, Post([Reply(Answer.AGAIN, "busy")]))
    passed = run.with_status(run.status.evolve(awaited_approval=None))
    desk.on_sleep = lambda: desk.runs.update({RUN: passed})
    assert settle(desk) == ()
    assert len(desk.post.sent) == 1


def test_a_run_that_is_held_for_a_moment_is_not_told() -> None:
    run = held()
    desk = Desk({RUN: run}, now=run.status.conditions[0].last_transition_time)
    desk.on_sleep = lambda: desk.runs.update({RUN: run.with_status(AlignmentRunStatus())})
    assert settle(desk) == ()
    assert desk.post.sent == []


def test_a_receiver_that_hangs_keeps_no_other_run_waiting() -> None:
    slow, quick = RunKey("team", "slow"), RUN
    stuck = {**HOOK, "url": "https://stuck.example.com/x"}
    runs = {slow: of_run(stuck).finish(succeed).run, quick: ended()}
    desk = Desk(runs, Post(hangs={"https://stuck.example.com/x"}))

    async def work() -> None:
        notifier = desk.notifier()
        for key in runs:
            notifier.consider(key)
        async with asyncio.timeout(30):
            while not desk.woken:
                await asyncio.sleep(0)
        await notifier.close()

    asyncio.run(work())
    assert desk.woken == [quick]
    assert len(desk.post.sent) == 2


def test_a_deleted_run_is_told_nothing() -> None:
    desk = Desk({RUN: ended()}, Post([Reply(Answer.AGAIN, "busy")]))
    desk.on_sleep = desk.runs.clear
    assert settle(desk) == ()
