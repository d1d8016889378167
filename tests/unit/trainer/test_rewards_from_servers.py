"""Rewards from servers in the judge stage, against examples/reward_server.py, and what becomes of their failures."""

import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dynalign_contract.errors import BadConfigError, StageError, TerminatedError, UnfitError
from dynalign_contract.metrics import JudgeMetrics
from dynalign_contract.reward_protocol import RewardItem, RewardRequest, build_json_schema
from dynalign_contract.settings import JudgeGates, RewardEndpoint, RewardSettings, reward_endpoint
from dynalign_trainer.endpoints.backoff import Backoff
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.endpoints.transport import LONGEST_ANSWER
from dynalign_trainer.models.window import Window
from dynalign_trainer.verifiers.batches import BatchFailure
from dynalign_trainer.verifiers.opening import REWARDS_JOURNAL
from dynalign_trainer.verifiers.reward_server import GIVEN_UP_AFTER, RewardServer, open_reward_server
from support.chat_server import completion, serve_chat
from support.judge_bench import JUDGE, JudgeBench, numbers, rollouts, tiny_window
from support.reward_servers import EXAMPLE, RewardServerLog, Trouble, example_handler, serve_rewards, serve_scores

SECRET = "sk-very-secret"  # noqa: S105 - made up
REPEATED = {"p0": ["yes yes no no", "no"], "p1": ["", "yes no"]}
WORTH = [0.5, 1.0, None, 1.0]
"""What the example server says of these: the share of words that are new; it cannot tell of none."""
TWO: tuple[RewardItem, ...] = tuple(
    RewardItem(group="p", candidate=i, messages=(), answer="yes", columns={}) for i in range(2)
)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Window:
    return tiny_window(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def bench(tmp_path: Path, window: Window, monkeypatch: pytest.MonkeyPatch) -> JudgeBench:
    return JudgeBench(tmp_path, window, monkeypatch)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "seconds", lambda *_: 0.001)


@pytest.fixture
def server() -> Iterator[RewardServerLog]:
    with serve_rewards() as log:
        yield log


def repeated() -> list[dict[str, Any]]:
    return [{**row, "text": REPEATED[row["prompt_id"]][row["candidate"]]} for row in rollouts()]


def http(url: str, *, endpoint: dict[str, Any] | None = None, **reward: Any) -> dict[str, Any]:
    return {"name": "variety", "type": "Http", "endpoint": {"url": url, **(endpoint or {})}, **reward}


def a_server(url: str, journal: Path = Path(os.devnull), environment: Any = None, **endpoint: Any) -> RewardServer:
    settings = RewardSettings.model_validate(http(url, endpoint=endpoint))
    assert isinstance(settings.endpoint, RewardEndpoint)
    return open_reward_server(reward_endpoint(0, settings), settings.endpoint, environment or {}, journal)


def a_request(reward: str = "variety") -> RewardRequest:
    return RewardRequest(run="r", iteration=0, reward=reward, items=TWO)


def values_of(bench: JudgeBench) -> list[float | None]:
    return numbers([row["verifiers"]["variety"] for row in bench.rows()])


def test_the_example_server_rewards_answers(bench: JudgeBench, server: RewardServerLog) -> None:
    output = bench.judge(http(server.url, weight=3), rows=repeated(), gates={"max_failed_share": 0.25})
    assert values_of(bench) == WORTH
    assert numbers([row["raw_reward"] for row in bench.rows()]) == [JUDGE] * 4
    combined = [None if value is None else (JUDGE + 3 * value) / 4 for value in WORTH]
    assert numbers([row["reward"] for row in bench.rows()]) == combined
    assert output.metrics[JudgeMetrics.verifier_reward.of("variety")] == pytest.approx(2.5 / 3)
    assert output.metrics[JudgeMetrics.verifier_failed_share.of("variety")] == 0.25
    assert bench.warnings == ["variety left answers undecided (1): it answered null."]
    assert not (bench.folder() / REWARDS_JOURNAL).exists()


def test_it_has_forty_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_a_request_says_what_the_protocol_says_and_nothing_of_thoughts(
    bench: JudgeBench, server: RewardServerLog
) -> None:
    rows = [{**row, "thought": "a secret thought", "thought_tokens": 1} for row in rollouts()]
    bench.judge(http(server.url, columns=["answer"]), rows=rows)
    first, second = map(json.loads, sorted(server.bodies))
    turns = [{"role": "user", "content": "How much is p0?"}]
    assert first == {
        "protocol": "dynalign.rewards/v1",
        "run": "r",
        "iteration": 0,
        "reward": "variety",
        "items": [
            {"group": "p0", "candidate": 0, "messages": turns, "answer": "It is 7.", "columns": {"answer": "7"}},
            {"group": "p0", "candidate": 1, "messages": turns, "answer": "It is 8.", "columns": {"answer": "7"}},
        ],
    }
    assert [item["columns"] for item in second["items"]] == [{}, {}]
    assert b"thought" not in b"".join(server.bodies)
    schema = build_json_schema()
    for request in (first, second):
        jsonschema.validate(request, {**schema, "$ref": "#/$defs/RewardRequest"})
    jsonschema.validate({"values": [1, 0.5, None]}, {**schema, "$ref": "#/$defs/RewardResponse"})


def test_columns_that_are_not_asked_for_are_not_sent(bench: JudgeBench, server: RewardServerLog) -> None:
    bench.judge(http(server.url))
    assert [item["columns"] for body in server.bodies for item in json.loads(body)["items"]] == [{}] * 4


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_rewards() as server:
        for attempt in ("a", "b"):
            (tmp_path / attempt).mkdir()
            JudgeBench(tmp_path / attempt, window, monkeypatch).judge(http(server.url, batchSize=1))
    assert sorted(server.bodies[:4]) == sorted(server.bodies[4:])
    assert len(set(server.bodies)) == 4


def test_of_a_server_that_fails_half_the_time_every_answer_is_decided(bench: JudgeBench) -> None:
    troubles = [Trouble(500, b"oops"), Trouble(200, b'{"values": ['), Trouble(200, b'{"values": []}')]
    with serve_rewards(lambda number: troubles[number // 2 % 3] if number % 2 else None) as server:
        bench.judge(
            http(server.url, batchSize=1, endpoint={"concurrency": 1}),
            rows=repeated(),
            gates={"max_failed_share": 0.25},
        )
    assert values_of(bench) == WORTH
    assert len(server.bodies) == 7, "three of four batches are repeated"


def test_without_retries_half_the_answers_are_undecided_and_the_gate_decides(bench: JudgeBench) -> None:
    def run(**gates: Any) -> None:
        with serve_rewards(lambda number: Trouble(503, b"busy") if number % 2 else None) as server:
            reward = http(server.url, batchSize=1, endpoint={"retries": 0, "concurrency": 1})
            bench.judge(reward, gates=JudgeGates(**gates))

    with pytest.raises(UnfitError, match=r"could not decide so many answers: variety 50\.0%.*status 503"):
        run(max_failed_share=0.4)
    for part in bench.folder().glob("part-*"):
        part.unlink()
    (bench.folder() / REWARDS_JOURNAL).unlink()
    run(max_failed_share=0.5)
    assert values_of(bench) == [1.0, None, 1.0, None]
    assert numbers([row["reward"] for row in bench.rows()]) == [(JUDGE + 1) / 2, None] * 2
    assert "variety left answers undecided (2): " in bench.warnings[0]


TROUBLES: dict[str, tuple[Trouble, str]] = {
    "busy": (Trouble(503, b"busy"), "status 503 after all retries"),
    "wrong key": (Trouble(401, b'{"error": "no"}'), "refuses the key with status 401"),
    "no such path": (Trouble(404), "refuses a request of dynalign.rewards/v1 with status 404"),
    "refused": (Trouble(422, b'{"detail": "too long"}'), "status 422.* It says: too long"),
    "redirect": (Trouble(302, b"", {"Location": "http://169.254.169.254/"}), "redirects"),
    "error inside": (Trouble(200, b'{"error": {"code": 500, "message": "crash"}}'), "It says: crash"),
    "page": (Trouble(200, b"<html>Hello"), "no answer of dynalign.rewards/v1 .*'<html>Hello'"),
    "list": (Trouble(200, b"[1, 1]"), "no answer of dynalign.rewards/v1"),
    "other field": (Trouble(200, b'{"scores": [1, 1]}'), "values: Field required"),
    "text": (Trouble(200, b'{"values": ["1", "1"]}'), r"values\.0: Input should be a valid number"),
    "truth": (Trouble(200, b'{"values": [true, false]}'), r"values\.0: Input should be a valid number"),
    "nan": (Trouble(200, b'{"values": [NaN, 1]}'), r"values\.0: Input should be a finite number"),
    "too few": (Trouble(200, b'{"values": [1]}'), "1 values for 2 items"),
    "too many": (Trouble(200, b'{"values": [1, 1, 1]}'), "3 values for 2 items"),
    "too large": (Trouble(200, b" " * (LONGEST_ANSWER + 1)), "more than 4 MiB"),
    "below the range": (Trouble(200, b'{"values": [-0.1, -1]}'), "values outside its range of 0 to 1"),
    "above the range": (Trouble(200, b'{"values": [1.1, 1e300]}'), "values outside its range of 0 to 1"),
    "null": (Trouble(200, b'{"values": [null, null]}'), "it answered null"),
}


@pytest.mark.parametrize(("trouble", "words"), TROUBLES.values(), ids=TROUBLES.keys())
def test_a_failure_is_nan_counted_and_told_and_never_0(bench: JudgeBench, trouble: Trouble, words: str) -> None:
    with serve_rewards(lambda number: trouble) as server:
        output = bench.judge(http(server.url, endpoint={"retries": 1}), gates={"max_failed_share": 1.0})
    assert values_of(bench) == [None] * 4
    assert numbers([row["reward"] for row in bench.rows()]) == [None] * 4
    assert output.metrics[JudgeMetrics.verifier_failed_share.of("variety")] == 1
    (warning,) = bench.warnings
    assert re.search(words, warning), warning


def test_one_value_out_of_range_leaves_the_others(bench: JudgeBench) -> None:
    with serve_rewards(lambda number: Trouble(200, b'{"values": [-2, 3]}')) as server:
        bench.judge(http(server.url, range={"low": -2, "high": 2}))
    assert values_of(bench) == [-2, None, -2, None]


def test_a_server_that_does_not_answer_in_time_or_at_all(bench: JudgeBench) -> None:
    gates = {"max_failed_share": 1.0}
    never = threading.Event()
    with serve_rewards(lambda number: Trouble(waits=never)) as server:
        bench.judge(http(server.url, endpoint={"retries": 0, "timeoutSeconds": 0.05}), gates=gates)
        never.set()
    assert values_of(bench) == [None] * 4
    assert "gave no answer within 0.05 s. Raise rewards[0].endpoint.timeoutSeconds" in bench.warnings[0]
    gone = a_server(server.url, retries=1).score([a_request()], lambda: None)
    assert [isinstance(found, BatchFailure) and "cannot be reached" in found.reason for found in gone] == [True]


def test_a_server_that_goes_on_failing_is_left_alone() -> None:
    with serve_rewards(lambda number: Trouble(500)) as server:
        found = a_server(server.url, retries=1, concurrency=1).score(
            [a_request(str(i)) for i in range(20)], lambda: None
        )
    assert len(server.bodies) == 2 * GIVEN_UP_AFTER
    assert isinstance(found[-1], BatchFailure)
    assert f"is not asked any more: {GIVEN_UP_AFTER} batches in a row failed" in found[-1].reason


def test_the_budget_ends_the_requests(bench: JudgeBench, server: RewardServerLog) -> None:
    endpoint = {"budget": {"requests": 3}, "concurrency": 1}
    bench.judge(http(server.url, batchSize=1, endpoint=endpoint), gates={"max_failed_share": 0.25})
    assert len(server.bodies) == 3
    assert values_of(bench) == [1, 1, 1, None]
    assert "rewards[0].endpoint.budget.requests of 3 is used up (3 spent); raise it" in bench.warnings[0]


def test_what_has_been_answered_is_not_asked_again(tmp_path: Path, server: RewardServerLog) -> None:
    first = a_server(server.url, tmp_path / "j").score([a_request("a"), a_request("b")], lambda: None)
    again = a_server(server.url, tmp_path / "j").score([a_request("a"), a_request("b"), a_request("c")], lambda: None)
    assert again[:2] == first == [(1.0, 1.0)] * 2
    assert len(server.bodies) == 3


def test_a_key_is_sent_and_shown_to_nobody(monkeypatch: pytest.MonkeyPatch, bench: JudgeBench) -> None:
    monkeypatch.setenv("REWARDS_KEY", SECRET)
    monkeypatch.setenv("DYNALIGN_REWARD_VARIETY_API_KEY", f"{SECRET}\n")
    reference: dict[str, Any] = {"apiKeySecretRef": {"name": "keys", "key": "rewards"}}
    with serve_rewards() as server:
        bench.judge(http(server.url, endpoint=reference))
    assert values_of(bench) == [1.0] * 4
    assert set(server.keys) == {f"Bearer {SECRET}"}
    with serve_rewards(lambda number: Trouble(400, f"key {SECRET} is bad".encode())) as server:
        found = a_server(server.url, environment=os.environ, **reference).score([a_request()], lambda: None)
    assert isinstance(found[0], BatchFailure)
    assert "is bad" in found[0].reason
    assert SECRET not in found[0].reason


@pytest.mark.parametrize(
    ("url", "environment", "words"),
    [
        ("https://x/", {}, "DYNALIGN_REWARD_VARIETY_API_KEY is not set"),
        ("http://rewards.example.com/", {"DYNALIGN_REWARD_VARIETY_API_KEY": "k"}, "would send the key in plain text"),
        ("https://169.254.169.254/", {"DYNALIGN_REWARD_VARIETY_API_KEY": "k"}, "such addresses are never asked"),
        (
            "http://localhost:1/",
            {"DYNALIGN_REWARD_VARIETY_API_KEY": "k", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            "the pod's own address",
        ),
    ],
)
def test_keys_and_addresses_are_looked_at_before_any_work(url: str, environment: dict[str, str], words: str) -> None:
    with pytest.raises(BadConfigError, match=words):
        a_server(url, environment=environment, apiKeySecretRef={"name": "keys", "key": "rewards"})


def test_sigterm_is_obeyed_while_a_server_is_silent() -> None:
    def stop() -> None:
        raise TerminatedError("stopped")

    never = threading.Event()
    with serve_rewards(lambda number: Trouble(waits=never)) as server:
        with pytest.raises(TerminatedError):
            a_server(server.url).score([a_request()], stop)
        never.set()


def test_a_probe_asks_for_the_version(server: RewardServerLog) -> None:
    a_server(server.url).probe(lambda: None)
    assert (server.probes, server.bodies) == (1, [])


def probe_error(url: str, **endpoint: Any) -> StageError:
    with pytest.raises(StageError) as caught:
        a_server(url, retries=1, **endpoint).probe(lambda: None)
    return caught.value


def test_a_probe_tells_what_only_the_user_can_change_from_what_may_pass(server: RewardServerLog) -> None:
    with serve_chat(lambda body: completion("x")) as chat:
        wrong = probe_error(f"{chat.url}/models")
        missing = probe_error(chat.url)
    assert isinstance(wrong, BadConfigError)
    assert "no answer of dynalign.rewards/v1 (protocols: Field required)" in str(wrong)
    assert isinstance(missing, BadConfigError)
    assert "with status 404. rewards[0].endpoint.url must be the address of a server of rewards" in str(missing)
    assert isinstance(probe_error("http://127.0.0.1:1/"), EndpointError)


def test_another_version_is_another_protocol() -> None:
    later = example_handler(do_GET=lambda handler: handler.reply({"protocols": ["dynalign.rewards/v2"]}))
    with serve_scores(later) as url:
        error = probe_error(url)
    assert isinstance(error, BadConfigError)
    assert "does not speak dynalign.rewards/v1; it speaks: dynalign.rewards/v2" in str(error)
