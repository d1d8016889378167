"""Models behind endpoints, against a real HTTP server: answers, retries, budgets, and what is said when it refuses."""

import os
import re
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.agents import Role, agent_endpoint
from dynalign_contract.endpoints import JUDGE_ENDPOINT, EndpointBudget, EndpointSettings
from dynalign_contract.errors import BadConfigError, StageError, TerminatedError
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.references import SecretKeyRef
from dynalign_trainer.endpoints.backoff import Backoff, retry_after
from dynalign_trainer.endpoints.client import Endpoint, open_endpoint
from dynalign_trainer.endpoints.completions import ChatRequest
from dynalign_trainer.endpoints.endpoint_model import EndpointModel, split_opening
from dynalign_trainer.endpoints.journal import Journal
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.models.chat_model import ChatTurn, Completion, Sampling
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.window import Window
from support.chat_server import Answer, completion, refusal, serve_chat
from support.endpoints import quick_endpoint

SAMPLING = Sampling(temperature=0.9, top_p=0.8, max_tokens=20)
KEY = SecretKeyRef(name="keys", key="author")
SECRET = "sk-very-secret"  # noqa: S105 - made up
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def ask(text: str = "Write.", seed: int = 1) -> ChatRequest:
    return ChatRequest(text, 1.0, 1.0, 8, seed=seed)


def asks(count: int) -> list[ChatRequest]:
    """Requests of which no two are the same."""
    return [ask(seed=seed) for seed in range(count)]


def endpoint(url: str, journal: Path | None = None, **settings: Any) -> Endpoint:
    """One that waits milliseconds between its tries; without a `journal` it remembers nothing."""
    environment = {"DYNALIGN_AUTHOR_API_KEY": f"{SECRET}\n"}
    return quick_endpoint(url, environment, journal=journal, **{"retries": 2, **settings})


def model_at(found: Endpoint) -> EndpointModel:
    return EndpointModel(found, Window(ChatTemplate(None), 0))


def refused(found: Endpoint, *requests: ChatRequest) -> StageError:
    with pytest.raises(StageError) as caught:
        found.complete(requests or [ask()])
    assert SECRET not in str(caught.value)
    return caught.value


def test_an_author_behind_an_endpoint_sends_what_the_settings_say_and_gets_its_texts_in_order() -> None:
    with serve_chat(lambda body: completion(f"{body['messages'][0]['content']}!")) as server:
        author = model_at(endpoint(server.url, api_key_secret_ref=KEY))
        found = author.write([ChatTurn("One"), ChatTurn("Two")], SAMPLING, seeds=[7, 8], watch=None)
    assert [f.text for f in found if f is not None] == ["One!", "Two!"]
    assert sorted(server.asked, key=lambda body: body["seed"])[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "One"}],
        "temperature": 0.9,
        "top_p": 0.8,
        "max_tokens": 20,
        "seed": 7,
    }
    assert server.keys == [f"Bearer {SECRET}"] * 2
    assert (author.version, author.usage.requests, author.usage.tokens) == ("endpoint:m", 2, 30)


def test_no_key_is_sent_that_the_run_file_does_not_name_and_none_is_shown() -> None:
    with serve_chat(lambda body: completion("x")) as server:
        endpoint(server.url).complete([ask()])
        assert server.keys == [None]
        assert SECRET not in repr(endpoint(server.url, api_key_secret_ref=KEY))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "DYNALIGN_CRITIC_API_KEY is not set. On this machine, export"),
        (" \n", "put it under author into the Secret keys"),
        ("a b", "holds white space"),
        ("schlüssel", "no HTTP header can carry"),
    ],
)
def test_a_key_that_cannot_be_sent_is_refused_before_any_work(key: str, words: str) -> None:
    settings = EndpointSettings(url="http://x/v1", model="m", api_key_secret_ref=KEY)
    with pytest.raises(BadConfigError, match=words) as caught:
        open_endpoint(
            agent_endpoint(Role.CRITIC), settings, {"DYNALIGN_CRITIC_API_KEY": key}, Journal(Path(os.devnull))
        )
    assert not key.strip() or key not in str(caught.value)


def test_an_opening_is_asked_for_and_kept_apart() -> None:
    assert split_opening("I am", ' "I am a baker."', finished=True) == Completion("I am", ' a baker."', finished=True)
    assert split_opening("I am", "How?", finished=False) == Completion("", "How?", finished=False)
    with serve_chat(lambda body: completion("I am a baker. Why?")) as server:
        author = model_at(endpoint(server.url))
        (found,) = author.write([ChatTurn("Write.", opening="I am a baker.")], SAMPLING, seeds=[1], watch=None)
    assert server.asked[0]["messages"][0]["content"].endswith("I am a baker.")
    assert found == Completion("I am a baker.", " Why?", finished=True)


def test_busy_and_failing_servers_are_asked_again() -> None:
    troubles = [refusal(429, "slow down", Retry_After="0"), refusal(503, "loading"), Answer(b"oops", 500)]
    with serve_chat(lambda body: troubles.pop() if troubles else completion("done")) as server:
        found = endpoint(server.url, retries=3)
        (reply,) = found.complete([ask()])
    assert reply is not None
    assert reply.text == "done"
    assert found.usage.requests == len(server.asked) == 4


def test_a_server_that_stays_busy_is_left_alone_after_the_retries_and_the_stage_may_be_tried_again() -> None:
    with serve_chat(lambda body: refusal(429, "quota of 3 a minute")) as server:
        error = refused(endpoint(server.url))
    assert len(server.asked) == 3
    assert isinstance(error, EndpointError)
    assert error.exit_code not in (ExitCode.BAD_CONFIG, ExitCode.BAD_INPUT)
    assert "status 429 after all retries. Lower prompts.agents.author.endpoint.concurrency" in str(error)
    assert "It says: quota of 3 a minute" in str(error)


def test_a_patient_part_of_the_run_goes_without_some_answers_but_not_without_a_server() -> None:
    def answer(body: dict[str, Any]) -> Answer:
        return refusal(503, "loading") if "bad" in body["messages"][0]["content"] else completion("done")

    with serve_chat(answer) as server:
        found = endpoint(server.url, retries=0, concurrency=1)
        found.patience = 2
        texts = ["bad", "bad", "good", "bad", "bad", "good"]
        replies = found.complete([ask(f"{text} {i}") for i, text in enumerate(texts)])
        assert [reply is not None for reply in replies] == [False, False, True] * 2
        with pytest.raises(EndpointError, match="status 503 after all retries"):
            found.complete([ask(f"bad again {i}") for i in range(4)])


def test_a_wait_that_nobody_should_sit_through_ends_the_stage() -> None:
    with serve_chat(lambda body: refusal(429, "come back", Retry_After="86400")) as server:
        assert "asks for a wait of 86400 s" in str(refused(endpoint(server.url)))
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            refusal(401, "invalid key"),
            "refuses the key with status 401. None was sent: name the Secret that holds it in",
        ),
        (refusal(403, "no access"), "status 403"),
        (refusal(404, "no such model"), "has no model m. Write one that it has in .*endpoint.model: big, small"),
        (refusal(400, "context is 512"), "refuses a request for m with status 400.*It says: context is 512"),
        (Answer(b"", 307, {"Location": "/"}), r"redirects \(status 307\)"),
        (Answer(b"<!doctype html><p>Hello"), "no chat completion .*'<!doctype html><p>Hello'.*most end in /v1"),
        (Answer({"choices": []}), "no chat completion"),
        (Answer({"hello": 1}), "choices: Field required"),
    ],
)
def test_what_only_the_user_can_mend_is_never_asked_again(answer: Answer, words: str) -> None:
    with serve_chat(lambda body: answer, models=("big", "small")) as server:
        error = refused(endpoint(server.url))
    assert error.exit_code == ExitCode.BAD_CONFIG
    assert len(server.asked) == 1
    assert re.search(words, str(error)), str(error)


def test_a_refused_key_names_where_it_comes_from() -> None:
    with serve_chat(lambda body: refusal(401, "invalid key")) as server:
        said = str(refused(endpoint(server.url, api_key_secret_ref=KEY)))
    assert "Check the key in the Secret of prompts.agents.author.endpoint.apiKeySecretRef" in said
    assert "DYNALIGN_AUTHOR_API_KEY" in said


@pytest.mark.parametrize(
    ("path", "models", "words"),
    [
        ("/v2", ("m",), "has no chat completions .*must be the base of an OpenAI-compatible API"),
        ("", None, "has no chat completions"),
    ],
)
def test_a_wrong_base_is_told_from_a_wrong_model(path: str, models: tuple[str, ...] | None, words: str) -> None:
    with serve_chat(lambda body: refusal(404, "nothing here"), models=models) as server:
        error = refused(endpoint(server.url.removesuffix("/v1") + path if path else server.url))
    assert re.search(words, str(error)), str(error)


def test_a_server_that_is_not_there() -> None:
    with serve_chat(lambda body: completion("x")) as server:
        url = server.url
    found = endpoint(url)
    error = refused(found)
    assert isinstance(error, EndpointError)
    assert f"{url} cannot be reached" in str(error)
    assert "Check prompts.agents.author.endpoint.url, that the server runs" in str(error)
    assert found.usage.requests == 3


def test_what_is_said_names_the_part_of_the_run_that_the_endpoint_plays() -> None:
    with serve_chat(lambda body: completion("x")) as server:
        url = server.url
    settings = EndpointSettings(url=url, model="m", retries=0)
    with pytest.raises(EndpointError) as caught:
        open_endpoint(JUDGE_ENDPOINT, settings, {}, Journal(Path(os.devnull))).complete([ask()])
    assert "Check evaluation.winRate.endpoint.url" in str(caught.value)
    assert "keeps the pods of the evaluate stage from it" in str(caught.value)


def test_a_server_that_does_not_answer_in_time() -> None:
    silent = threading.Event()

    def wait(body: dict[str, Any]) -> Answer:
        silent.wait(10)
        return completion("late")

    with serve_chat(wait) as server:
        error = refused(endpoint(server.url, timeout_seconds=0.05, retries=0))
        silent.set()
    assert "gave no answer within 0.05 s. Raise prompts.agents.author.endpoint.timeoutSeconds" in str(error)


def test_no_more_requests_are_under_way_than_allowed_and_all_of_these_are() -> None:
    together = threading.Barrier(3)

    def meet(body: dict[str, Any]) -> Answer:
        together.wait(10)
        return completion("x")

    with serve_chat(meet) as server:
        replies = endpoint(server.url, concurrency=3).complete(asks(9))
    assert len(replies) == 9
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    ("budget", "answered", "words"),
    [
        (EndpointBudget(requests=2), 2, "endpoint.budget.requests of 2 is used up (2 spent); raise it"),
        (EndpointBudget(tokens=40), 3, "endpoint.budget.tokens of 40 is used up (45 spent); raise it"),
    ],
)
def test_a_budget_ends_the_work_and_says_which(budget: EndpointBudget, answered: int, words: str) -> None:
    with serve_chat(lambda body: completion("x")) as server:
        found = endpoint(server.url, budget=budget, concurrency=1)
        replies = found.complete(asks(5))
        assert found.complete([ask(seed=99)]) == [None]
    assert [reply is not None for reply in replies] == [True] * answered + [False] * (5 - answered)
    assert len(server.asked) == answered
    message = found.budget.exhausted_message()
    assert message is not None
    assert words in message


def test_retries_are_paid_for() -> None:
    with serve_chat(lambda body: refusal(503, "loading")) as server:
        found = endpoint(server.url, retries=9, budget=EndpointBudget(requests=4))
        assert found.complete([ask()]) == [None]
    assert len(server.asked) == 4


def test_a_server_that_counts_no_tokens_is_estimated() -> None:
    with serve_chat(lambda body: completion("y" * 40, usage=None)) as server:
        found = endpoint(server.url)
        found.complete([ask("x" * 40)])
    assert found.usage.tokens == 21


def test_sigterm_gives_up_what_is_under_way() -> None:
    released = threading.Event()

    def wait(body: dict[str, Any]) -> Answer:
        released.wait(30)
        return completion("x")

    def stop(done: int, total: int, rate: float) -> None:
        raise TerminatedError("stopped by SIGTERM")

    with serve_chat(wait) as server:
        with pytest.raises(TerminatedError):
            endpoint(server.url).complete(asks(3), stop)
        released.set()


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    with serve_chat(lambda body: completion("x")) as server:
        endpoint(server.url, concurrency=1).complete(asks(3), lambda done, total, _: seen.append((done, total)))
    assert seen[-1] == (3, 3)


@given(attempt=st.integers(1, 60), draw=st.floats(0, 1, exclude_max=True), asked=st.none() | st.floats(0, 100))
def test_waits_grow_to_a_bound_and_never_fall_short_of_what_was_asked(
    attempt: int, draw: float, asked: float | None
) -> None:
    wait = Backoff(first=0.5, most=8.0).seconds(attempt, draw, asked)
    assert 0 <= wait <= 8.0 + (asked or 0.0)
    assert wait >= (asked or 0.0)
    assert Backoff(first=0.5, most=8.0).seconds(attempt, 1.0, None) == min(8.0, 0.5 * 2 ** (attempt - 1))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("1.5", 1.5),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30.0),
        (format_datetime(NOW - timedelta(seconds=30), usegmt=True), 0.0),
        ("soon", None),
        ("", None),
        ("-3", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}, NOW) == seconds


def test_no_header_asks_for_nothing() -> None:
    assert retry_after({}, NOW) is None


def test_what_has_been_paid_for_is_not_paid_for_again(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with serve_chat(lambda body: completion(f"Number {body['seed']}")) as server:
        first = endpoint(server.url, path, budget=EndpointBudget(requests=2), concurrency=1)
        assert [reply is not None for reply in first.complete(asks(4))] == [True, True, False, False]
        with path.open("a") as file:
            file.write('{"key": "torn off in the mid')
        again = endpoint(server.url, path)
        replies = again.complete(asks(4))
    assert [reply.text for reply in replies if reply is not None] == [f"Number {seed}" for seed in range(4)]
    assert (again.usage.requests, len(server.asked)) == (2, 4)
    assert SECRET not in path.read_text()


def test_another_model_or_server_or_question_is_asked_itself(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with serve_chat(lambda body: completion("x")) as server, serve_chat(lambda body: completion("x")) as other:
        endpoint(server.url, path).complete([ask()])
        endpoint(server.url, path).complete([ask("Read.")])
        endpoint(other.url, path).complete([ask()])
        assert (len(server.asked), len(other.asked)) == (2, 1)
