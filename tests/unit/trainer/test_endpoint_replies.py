"""Servers as they are: thoughts, parts, errors inside a success, and parameters that they refuse."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.agents import Role, agent_endpoint
from dynalign_contract.errors import BadConfigError, StageError
from dynalign_trainer.endpoints.client import Endpoint, open_endpoint
from dynalign_trainer.endpoints.completions import ChatRequest, parse_reply
from dynalign_trainer.endpoints.endpoint_model import EndpointModel
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.models.chat_model import ChatTurn, Sampling
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.choices import DIGITS, LETTERS, expected_digit
from dynalign_trainer.models.reasoning import Parted, part_reasoning
from dynalign_trainer.models.window import Window
from dynalign_trainer.prompts.author import clean
from support.chat_server import Answer, completion, refusal, scored, serve_chat
from support.endpoints import quick_endpoint

SAMPLING = Sampling(temperature=0.9, top_p=0.8, max_tokens=20)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def endpoint(url: str, journal: Path = Path(os.devnull), role: Role = Role.AUTHOR, **settings: Any) -> Endpoint:
    return quick_endpoint(url, {}, role=role, journal=journal, **{"retries": 1, "concurrency": 1, **settings})


def ask(seed: int = 1) -> ChatRequest:
    return ChatRequest("Write.", 0.7, 0.9, 8, seed=seed, choices=DIGITS.answers, logprobs=True)


def asks(count: int) -> list[ChatRequest]:
    return [ask(seed) for seed in range(count)]


def message(**fields: Any) -> Answer:
    return Answer({"choices": [{"message": {"role": "assistant", **fields}, "finish_reason": "stop"}]})


def digits(model: EndpointModel, *questions: str) -> list[float]:
    return [expected_digit(row)[0] for row in model.choose([ChatTurn(q) for q in questions], DIGITS, None)]


def read(answer: Answer, choices: tuple[str, ...] = ()) -> Any:
    return parse_reply(json.dumps(answer.body).encode(), replace(ask(), choices=choices))


def expected(masses: tuple[float, ...] | None) -> float:
    return math.nan if masses is None else sum(i * mass for i, mass in enumerate(masses)) / sum(masses)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("Why?", "", "Why?"),
        ("<think>from 0 to 9</think> 8", "from 0 to 9", "8"),
        ("<think>\nweigh it\n</think>\n\n8", "weigh it", "8"),
        ("<Thinking>weigh it</Thinking>8", "weigh it", "8"),
        ("<reasoning>weigh it</reasoning>\nWhy?", "weigh it", "Why?"),
        ("[THINK]weigh it[/THINK]8", "weigh it", "8"),
        ("weigh it, 3 or 4\n</think>\n8", "weigh it, 3 or 4", "8"),
        ("<think>weigh it until", "weigh it until", ""),
        ("<think></think>8", "", "8"),
        ("<think>a</think>So: <think>b</think>8", "a\nb", "So: 8"),
        ("<think>a <think>b</think> 8", "a <think>b", "8"),
        ("8\n<think>was that right", "was that right", "8"),
        ("What does the tag <think> do?", "", "What does the tag <think> do?"),
        (
            "<|channel|>analysis<|message|>weigh it<|end|><|start|>assistant<|channel|>final<|message|>8<|return|>",
            "weigh it",
            "8",
        ),
        ("<|channel|>analysis<|message|>weigh it until", "weigh it until", ""),
        ("analysisWe weigh 3 against 4.assistantfinal8", "We weigh 3 against 4.", "8"),
        ("analysis of the poem: good", "", "analysis of the poem: good"),
    ],
)
def test_thoughts_are_told_from_the_answer(text: str, reasoning: str, answer: str) -> None:
    assert part_reasoning(text) == Parted(reasoning, answer)


@pytest.mark.parametrize(
    ("answer", "text", "reasoning"),
    [
        (message(content="Why?", reasoning_content="weigh it"), "Why?", "weigh it"),
        (message(content="Why?", reasoning="weigh it"), "Why?", "weigh it"),
        (message(content=[{"type": "text", "text": "Why"}, {"type": "text", "text": "?"}]), "Why?", ""),
        (message(content=[{"type": "output_text", "text": "Why?"}]), "Why?", ""),
        (
            message(
                content=[
                    {"type": "thinking", "thinking": [{"type": "text", "text": "weigh it"}]},
                    {"type": "text", "text": "Why?"},
                ]
            ),
            "Why?",
            "weigh it",
        ),
        (message(content=[{"type": "text", "text": "<think>a</think>Why?"}]), "Why?", "a"),
        (message(content=["Why?"]), "Why?", ""),
        (message(content=None, reasoning_content="weigh it"), "", "weigh it"),
        (message(content=None), "", ""),
        (message(content=[{"type": "image_url", "image_url": {"url": "x"}}]), "", ""),
    ],
)
def test_an_answer_is_read_in_whatever_form_it_comes(answer: Answer, text: str, reasoning: str) -> None:
    found = read(answer)
    assert (found.text, found.reasoning) == (text, reasoning)


@pytest.mark.parametrize("odd", [{"tokens": ["7"], "token_logprobs": [-0.1]}, {"content": [{"token": None}]}, [], "no"])
def test_log_probabilities_of_another_form_are_none(odd: Any) -> None:
    answer = completion("7", usage=None)
    answer.body["choices"][0]["logprobs"] = odd
    answer.body["usage"] = {"prompt_tokens": None}
    assert expected(read(answer, DIGITS.answers).choices) == 7


def thought(*tokens: str) -> list[tuple[str, dict[str, float]]]:
    return [(token, {token: 0.9}) for token in tokens]


SEVEN = ("7", {"7": 0.5, "8": 0.25, "3": 0.25})


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (scored(*thought("<think>", "from ", "0", " to ", "9", "</think>", "\n\n"), SEVEN), 6.25),
        (scored(*thought("<think>", "7", " is ", "7", "</think>"), SEVEN), 6.25),
        (scored(*thought("Score", ": "), SEVEN, *thought(" of", " ", "9")), 6.25),
        (completion("<think>a score from 0 to 9, say 3</think> 8"), 8),
        (completion("On a scale from 0 to 9 I give it a 7."), 7),
        (completion("I see 2 flaws. Score: 6"), 6),
        (completion("7 out of 9"), 7),
        (completion("**Rating:** 7/9"), 7),
        (completion("2 flaws and 3 merits"), math.nan),
        (completion("<think>it is a 7, I am sure"), math.nan),
    ],
)
def test_a_digit_is_read_where_it_stands_in_the_answer(answer: Answer, score: float) -> None:
    assert expected(read(answer, DIGITS.answers).choices) == pytest.approx(score, nan_ok=True)


def test_log_probabilities_may_hold_thoughts_that_the_content_does_not() -> None:
    """As vLLM with a reasoning parser: `content` is the answer, `logprobs` are of every token."""
    answer = scored(*thought("I think ", "3", ", no, ", "4"), SEVEN)
    answer.body["choices"][0]["message"] = {"content": "7", "reasoning_content": "I think 3, no, 4"}
    assert expected(read(answer, DIGITS.answers).choices) == pytest.approx(6.25)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        ("**A**", "A"),
        ("(B)", "B"),
        ("A is better.", "A"),
        ("A careful reading shows that B is better.", "B"),
        ("A good question! B.", "B"),
        ("A comparison of the two is hard.", ""),
        ("I prefer B over A.", "B"),
        ("B is better than A.", "B"),
        ("Response A is better than response B.", "A"),
        ("The better answer is B. A is shorter.", "B"),
        ("\\boxed{B}", "B"),
        ("A or B?", ""),
        ("<think>A is better, no, wait</think>\nB", "B"),
    ],
)
def test_a_letter_is_the_one_that_the_answer_decides_for(text: str, letter: str) -> None:
    found = read(completion(text), LETTERS.answers).choices
    assert found == ({"A": (1.0, 0.0), "B": (0.0, 1.0)}.get(letter))


def test_an_article_is_no_letter_for_its_log_probability_either() -> None:
    tokens = [*thought("A", " careful", " reading", ": "), ("B", {"B": 0.8, "A": 0.2})]
    assert read(scored(*tokens), LETTERS.answers).choices == pytest.approx((0.2, 0.8))


def test_author_and_critic_behind_a_thinking_server_read_its_answers_only() -> None:
    def answer(body: dict[str, Any]) -> Answer:
        told = "8" if "digit" in body["messages"][0]["content"] else "How do rivers share heat?"
        return completion(f"<think>a score from 0 to 9, or a question?</think>\n\n{told}")

    with serve_chat(answer) as server:
        role = EndpointModel(endpoint(server.url), Window(ChatTemplate(None), 0))
        (written,) = role.write([ChatTurn("Write.")], SAMPLING, seeds=[1], watch=None)
        assert written is not None
        assert clean(written.opening, written.text, finished=written.finished) == "How do rivers share heat?"
        assert digits(role, "Good?") == [8.0]


def thinker(body: dict[str, Any]) -> Answer:
    """It needs 100 tokens for its thoughts."""
    if body["max_tokens"] < 100:
        return completion("<think>Let me see", reason="length")
    return completion("<think>Let me see</think>5")


def test_a_model_that_spends_its_length_on_thoughts_gets_room_for_them_from_then_on() -> None:
    with serve_chat(thinker) as server:
        role = EndpointModel(endpoint(server.url, thought_tokens=500), Window(ChatTemplate(None), 0))
        assert digits(role, "Good?", "Better?") == [5.0, 5.0]
    assert [body["max_tokens"] > 500 for body in server.asked] == [False, True, True]


def test_a_model_that_never_comes_to_an_answer_is_not_asked_for_ever() -> None:
    with serve_chat(thinker) as server:
        role = EndpointModel(endpoint(server.url, thought_tokens=10), Window(ChatTemplate(None), 0))
        assert math.isnan(digits(role, "Good?")[0])
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ({"error": {"message": "busy", "code": 429}}, EndpointError, "status 429"),
        ({"error": {"message": "busy", "code": "rate_limit_exceeded"}}, EndpointError, "status 429"),
        ({"error": {"message": "no key", "code": 401}}, BadConfigError, "refuses the key with status 401"),
        ({"error": {"message": "no key", "type": "invalid_api_key"}}, BadConfigError, "status 401"),
        ({"error": {"message": "who?", "code": "model_not_found"}}, BadConfigError, "lists the model m but"),
        ({"error": {"message": "Provider returned error", "code": 502}}, EndpointError, "status 502"),
        ({"error": "Provider returned error"}, EndpointError, "It says: Provider returned error"),
        ({"object": "error", "message": "too long", "code": 400}, BadConfigError, "status 400"),
        ({"choices": [{"error": {"code": 503, "message": "gone"}, "message": {}}]}, EndpointError, "status 503"),
        ({"error": {"message": "pay", "code": "insufficient_quota"}}, BadConfigError, "paid"),
    ],
)
def test_an_error_inside_a_success_is_read_by_its_own_code(error: Any, kind: type[StageError], words: str) -> None:
    with serve_chat(lambda body: Answer(error)) as server, pytest.raises(StageError) as caught:
        endpoint(server.url).complete([ask()])
    assert (type(caught.value), len(server.asked)) == (kind, 2 if kind is EndpointError else 1)
    assert words in str(caught.value)


OPENAI = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


def without(*names: str) -> Callable[[dict[str, Any]], Answer]:
    """A server that refuses these parameters, one at a time, naming them in words."""

    def answer(body: dict[str, Any]) -> Answer:
        found = next((name for name in names if name in body), None)
        return completion("7") if found is None else refusal(400, f"Unrecognized request argument supplied: {found}")

    return answer


def test_max_completion_tokens_takes_the_place_of_max_tokens() -> None:
    def answer(body: dict[str, Any]) -> Answer:
        return refusal(400, OPENAI) if "max_tokens" in body else completion("7")

    with serve_chat(answer) as server:
        endpoint(server.url).complete(asks(3))
    assert [body.get("max_completion_tokens") for body in server.asked] == [None, 8, 8, 8]


@pytest.mark.parametrize(
    "names", [("temperature",), ("seed", "top_p"), ("top_logprobs",), ("max_tokens", "max_completion_tokens")]
)
def test_what_a_server_refuses_is_left_out_once_and_remembered(names: tuple[str, ...]) -> None:
    with serve_chat(without(*names)) as server:
        replies = endpoint(server.url).complete(asks(3))
    assert [reply is not None and reply.text for reply in replies] == ["7"] * 3
    assert len(server.asked) == 3 + len(names)
    assert not any(name in body for body in server.asked[-3:] for name in names)


@pytest.mark.parametrize(
    ("status", "body", "parameter"),
    [
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
        (400, {"error": {"message": "Unsupported value.", "param": "temperature"}}, "temperature"),
        (200, {"error": {"message": "top_p is not supported", "code": 400}}, "top_p"),
        (400, {"message": "`temperature` and `top_p` cannot both be given"}, "top_p"),
    ],
)
def test_the_parameter_is_found_wherever_it_is_named(status: int, body: Any, parameter: str) -> None:
    with serve_chat(lambda b: Answer(body, status) if parameter in b else completion("7")) as server:
        endpoint(server.url).complete([ask()])
    assert set(server.asked[0]) - set(server.asked[1]) == {parameter}


def test_a_server_that_gives_fewer_alternatives_is_asked_for_fewer() -> None:
    def answer(body: dict[str, Any]) -> Answer:
        if body["top_logprobs"] > 5:
            return refusal(400, "top_logprobs must be between 0 and 5")
        return scored(SEVEN)

    with serve_chat(answer) as server:
        (reply,) = endpoint(server.url).complete([ask()])
    assert reply is not None
    assert expected(reply.choices) == pytest.approx(6.25)


@pytest.mark.parametrize(
    "said",
    [
        "max_tokens is too large: 8. This model supports at most 4 completion tokens",
        "This model's maximum context length is 512 tokens. Reduce max_tokens.",
        "I dislike this request",
    ],
)
def test_what_leaving_out_would_not_mend_is_told(said: str) -> None:
    with serve_chat(lambda body: refusal(400, said)) as server, pytest.raises(BadConfigError, match="status 400"):
        endpoint(server.url).complete([ask()])
    assert len(server.asked) == 1


def test_a_server_that_refuses_everything_by_name_is_not_asked_for_ever() -> None:
    everything = "temperature top_p max_tokens max_completion_tokens seed logprobs top_logprobs are wrong"
    with serve_chat(lambda body: refusal(400, everything)) as server, pytest.raises(BadConfigError):
        endpoint(server.url).complete([ask()])
    assert len(server.asked) <= 8
    assert set(server.asked[-1]) == {"model", "messages"}


def test_what_one_role_has_learned_another_one_and_another_attempt_know(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with serve_chat(without("seed")) as server:
        first = endpoint(server.url, path)
        first.complete([ask()])
        critic = open_endpoint(agent_endpoint(Role.CRITIC), first.settings, {}, first.journal)
        critic.complete([ask(2)])
        endpoint(server.url, path).complete([ask(3)])
    assert ["seed" in body for body in server.asked] == [True, False, False, False]


def test_requests_under_way_together_learn_side_by_side() -> None:
    with serve_chat(without("seed", "temperature", "top_p")) as server:
        replies = endpoint(server.url, concurrency=8).complete(asks(16))
    assert all(reply is not None and reply.text == "7" for reply in replies)
