"""Scores and letters from an endpoint: log-probabilities where the server gives them, otherwise the text."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynalign_trainer.endpoints.client import Endpoint
from dynalign_trainer.endpoints.completions import ChatRequest, parse_reply
from dynalign_trainer.endpoints.endpoint_model import EndpointModel
from dynalign_trainer.models.chat_model import ChatTurn
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.choices import DIGITS, LETTERS, Choices, expected_digit
from dynalign_trainer.models.window import Window
from support.chat_server import Answer, completion, refusal, scored, serve_chat
from support.endpoints import quick_endpoint

SECRET = "sk-very-secret"  # noqa: S105 - made up


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def ask(text: str = "Write.", seed: int = 1) -> ChatRequest:
    return ChatRequest(text, 1.0, 1.0, 8, seed=seed)


def endpoint(url: str, journal: Path | None = None, **settings: Any) -> Endpoint:
    """One that waits milliseconds between its tries; without a `journal` it remembers nothing."""
    environment = {"DYNALIGN_AUTHOR_API_KEY": f"{SECRET}\n"}
    return quick_endpoint(url, environment, journal=journal, **{"retries": 2, **settings})


def model_at(found: Endpoint) -> EndpointModel:
    return EndpointModel(found, Window(ChatTemplate(None), 0))


def digits(model: EndpointModel, *questions: str) -> list[float]:
    rows = model.choose([ChatTurn(question, "Score: ") for question in questions], DIGITS, None)
    return [expected_digit(row)[0] for row in rows]


def read(answer: Answer, choices: Choices) -> tuple[float, ...] | None:
    request = replace(ask(), choices=choices.answers, logprobs=True)
    return parse_reply(json.dumps(answer.body).encode(), request).choices


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (scored(("7", {"7": 0.5, "8": 0.25, " 3": 0.25})), 6.25),
        (scored(("Score", {"Score": 0.9}), (": ", {}), ("4", {"4": 0.6, "6": 0.2, "x": 0.2})), 4.5),
        (scored(("10", {"10": 0.9, "9": 0.1})), None),
        (completion("The score is 8."), 8.0),
        (completion("8/9"), 8.0),
        (completion("10"), None),
        (completion("7.5 or so"), None),
        (completion("no idea"), None),
        (completion(""), None),
    ],
)
def test_scores_are_expected_digits_where_the_server_tells_and_digits_of_the_text_otherwise(
    answer: Answer, expected: float | None
) -> None:
    masses = read(answer, DIGITS)
    assert (masses is None) is (expected is None)
    if masses is not None:
        assert sum(digit * mass for digit, mass in enumerate(masses)) / sum(masses) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "masses"),
    [
        (scored(("A", {"A": 0.6, "B": 0.3, " B": 0.05})), (0.6, 0.35)),
        (scored((" Answer", {" Answer": 0.9}), (" B", {" B": 0.8, "B": 0.1})), (0.0, 0.9)),
        (scored(("BA", {"BA": 0.9, "A": 0.1})), None),
        (completion("A"), (1.0, 0.0)),
        (completion("**B**"), (0.0, 1.0)),
        (completion("Better answer: B."), (0.0, 1.0)),
        (completion("Both are good."), None),
        (completion("7"), None),
    ],
)
def test_letters_are_read_as_digits_are(answer: Answer, masses: tuple[float, float] | None) -> None:
    found = read(answer, LETTERS)
    assert found == (None if masses is None else pytest.approx(masses))


def test_of_a_text_no_character_is_read() -> None:
    assert parse_reply(json.dumps(completion("A 7").body).encode(), ask()).choices is None


def test_a_critic_that_gives_no_digit_is_asked_once_more() -> None:
    answers = [completion("Let me think."), completion("5")]
    with serve_chat(lambda body: answers.pop(0)) as server:
        critic = model_at(endpoint(server.url))
        assert digits(critic, "Good?") == [5.0]
    assert server.asked[0]["top_logprobs"] == 20
    assert server.asked[0]["messages"][0]["content"].startswith("Good?")
    assert server.asked[0]["messages"] != server.asked[1]["messages"]


def test_a_server_without_log_probabilities_is_asked_without_from_then_on() -> None:
    def answer(body: dict[str, Any]) -> Answer:
        return refusal(400, "logprobs is not supported") if "logprobs" in body else completion("6")

    with serve_chat(answer) as server:
        critic = model_at(endpoint(server.url, concurrency=1))
        assert digits(critic, "a", "b") == [6.0, 6.0]
    assert ["logprobs" in body for body in server.asked] == [True, False, False]
