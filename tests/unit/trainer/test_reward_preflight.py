"""What can be known of servers and functions of rewards before any work is found in fetch."""

import threading
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.errors import BadConfigError, TerminatedError
from dynalign_contract.settings import RewardSettings
from dynalign_trainer.endpoints.backoff import Backoff
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.preflight.findings import Findings
from dynalign_trainer.preflight.rewards import find_in_rewards
from support.reward_packages import install_rewards
from support.reward_servers import example_handler, serve_rewards, serve_scores

OWN = {"name": "own", "type": "Python", "entryPoint": "half"}
HALF = "def half(request):\n    return [0.5] * len(request['items'])\n"
NOWHERE = "http://127.0.0.1:1/score"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "seconds", lambda *_: 0.001)


def find(*rewards: dict[str, Any], in_place: bool = True) -> Findings:
    found = Findings()
    settings = tuple(RewardSettings.model_validate(reward) for reward in rewards)
    find_in_rewards(found, settings, lambda: None, in_place=in_place)
    return found


def http(url: str, **endpoint: Any) -> dict[str, Any]:
    return {"name": "service", "type": "Http", "endpoint": {"url": url, "retries": 1, **endpoint}}


def test_nothing_is_wrong_with_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_rewards(tmp_path, monkeypatch, HALF, half="half")
    with serve_rewards() as server:
        found = find({"name": "short", "type": "Length", "max": 3}, OWN, http(server.url))
    assert (found.errors, found.notes, server.probes, server.bodies) == ([], [], 1, [])


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = find({"name": "bad", "type": "Regex", "pattern": "("}, OWN, http(NOWHERE))
    told = [str(error) for error in found.errors]
    assert len(told) == 3
    assert "rewards[0].pattern" in told[0]
    assert told[1].startswith("rewards[1].entryPoint: no package in this image registers half")
    assert f"{NOWHERE} cannot be reached" in told[2]
    assert "rewards[2].endpoint.url" in told[2]


def test_a_server_that_is_down_may_be_up_later_and_one_of_another_protocol_will_not() -> None:
    (down,) = find(http(NOWHERE)).errors
    assert isinstance(down, EndpointError)
    with serve_scores(example_handler(do_GET=lambda handler: handler.reply({"hello": 1}))) as url:
        (other,) = find(http(url)).errors
    assert isinstance(other, BadConfigError)


def test_the_key_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = {"apiKeySecretRef": {"name": "keys", "key": "service"}}
    monkeypatch.setenv("REWARDS_KEY", "right")
    with serve_rewards() as server:
        monkeypatch.setenv("DYNALIGN_REWARD_SERVICE_API_KEY", "wrong")
        (error,) = find(http(server.url, **reference)).errors
        monkeypatch.setenv("DYNALIGN_REWARD_SERVICE_API_KEY", "right")
        assert find(http(server.url, **reference)).errors == []
    assert "refuses the key with status 401. Check the key in the Secret of rewards[0].endpoint.apiKeySecretRef" in str(
        error
    )


def test_on_another_machine_no_server_is_asked_and_a_missing_function_is_a_note() -> None:
    with serve_rewards() as server:
        found = find({"name": "bad", "type": "Regex", "pattern": "("}, OWN, http(server.url), in_place=False)
    assert ["rewards[0].pattern" in str(error) for error in found.errors] == [True]
    assert len(found.notes) == 1
    assert "rewards[1].entryPoint: no package in this image registers half" in found.notes[0]
    assert (server.probes, server.bodies) == (0, [])


def test_sigterm_is_no_finding() -> None:
    def stop() -> None:
        raise TerminatedError("stopped")

    never = threading.Event()
    with serve_scores(example_handler(do_GET=lambda handler: never.wait(60))) as url:
        with pytest.raises(TerminatedError):
            find_in_rewards(Findings(), (RewardSettings.model_validate(http(url)),), stop, in_place=True)
        never.set()
