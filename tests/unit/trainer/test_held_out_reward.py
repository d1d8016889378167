"""Rewards of held-out answers: by whom, what is asked only once, and what can be compared over iterations."""

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dynalign_contract.config import EvaluateParams, Policy, StageConfig
from dynalign_contract.inputs import Input
from dynalign_contract.layout import ANSWERS_FILE, RunLayout
from dynalign_contract.metrics import EvaluateMetrics
from dynalign_contract.objective import Aspect, builtin_objective
from dynalign_contract.records import ANSWER, AnswerRow, read_rows, write_rows
from dynalign_contract.settings import (
    EvaluationSettings,
    JudgeSettings,
    JudgingSettings,
    PanelJudge,
    Penalties,
    RewardSettings,
)
from dynalign_trainer.endpoints.endpoint_model import EndpointModel
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.evaluate.earlier_answers import read_earlier_answers
from dynalign_trainer.evaluate.fixed_judges import FixedJudge, FixedJudges, open_fixed_judges
from dynalign_trainer.evaluate.held_out import HeldOut
from dynalign_trainer.evaluate.held_out_reward import explain_missing, held_out_metrics, reward_answers
from dynalign_trainer.evaluate.progress import Progress
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.telemetry import Telemetry
from support.scripted_model import ScriptedModel

OBJECTIVE = builtin_objective("collective-agency").model_copy(
    update={"aspects": (Aspect(id="care", title="Care", definition="d"),)}
)
POLICY = Policy(version="iteration-000")
OPTIONS: Any = {"confidence": 0.95, "resamples": 500, "seed": 1}
ENDPOINT = {"url": "http://judge:8000/v1", "model": "m"}


def praise(message: str) -> float:
    """9 for an answer that says good, 4.5 for any other."""
    return 9.0 if "good" in message else 4.5


def answers(policy: str, *texts: str) -> list[AnswerRow]:
    return [
        {
            "prompt_id": f"p{i}",
            "policy": policy,
            "messages": [{"role": "user", "content": "What now?"}],
            "completion_ids": [1, 2],
            "finish_reason": "stop",
            "text": text,
        }
        for i, text in enumerate(texts)
    ]


def params(judging: JudgingSettings | None = None, **more: Any) -> EvaluateParams:
    return EvaluateParams(
        objective=OBJECTIVE,
        evaluation=EvaluationSettings(),
        judging=judging or JudgingSettings(),
        policy=POLICY,
        max_tokens=8,
        **more,
    )


def context_of(root: Path, found: EvaluateParams, iteration: int = 0, **inputs: Path) -> StageContext[EvaluateParams]:
    folder = root / f"evaluation-{iteration}"
    folder.mkdir(parents=True, exist_ok=True)
    return StageContext(
        config=StageConfig(run="r", iteration=iteration, params=found),
        params=found,
        layout=RunLayout(root),
        folder=folder,
        shard=0,
        inputs={name: (path,) for name, path in inputs.items()},
        telemetry=Telemetry(),
        stopping=threading.Event(),
    )


@pytest.fixture
def judged_by(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedModel]:
    """Have a scripted model stand in for the run's own; the versions that were asked for are its `policies`."""

    def stand_in(digit: Callable[[str], float] = praise) -> ScriptedModel:
        model = ScriptedModel(digit=digit, version="base")
        asked: list[str] = []
        model.policies = asked  # type: ignore[attr-defined]

        def build(engine: object, policy: Policy) -> ScriptedModel:
            asked.append(policy.version)
            return model

        monkeypatch.setattr("dynalign_trainer.evaluate.fixed_judges.EngineModel", build)
        return model

    return stand_in


ENGINE: Any = SimpleNamespace(chat=None, max_length=1000)


def judges_of(root: Path, found: EvaluateParams, iteration: int = 0) -> FixedJudges:
    return open_fixed_judges(context_of(root, found, iteration), ENGINE, {})


def rewards(rows: list[AnswerRow]) -> list[float]:
    return [round(row["reward"], 5) for row in rows]


@pytest.fixture
def held() -> dict[str, list[AnswerRow]]:
    return {
        "base": answers("base", "plain", "good", "fair"),
        POLICY.version: answers(POLICY.version, "good", "good", "x"),
    }


def test_both_policies_answers_are_rewarded_and_the_difference_is_that_of_the_same_prompts(
    tmp_path: Path, judged_by: Callable[..., ScriptedModel], held: dict[str, list[AnswerRow]]
) -> None:
    model = judged_by()
    rewarded = reward_answers(judges_of(tmp_path, params()), held, policy=POLICY)
    assert rewards(rewarded["base"]) == [0.5, 1.0, 0.5]
    assert rewards(rewarded[POLICY.version]) == [1.0, 1.0, 0.5]
    assert len(model.turns) == 5, "the answer that both gave is judged once"
    found = held_out_metrics(rewarded[POLICY.version], rewarded["base"], **OPTIONS)
    values = {metric: value for metric, value in found.items() if value is not None}
    reward, delta = (m.join(values) for m in (EvaluateMetrics.held_out_reward, EvaluateMetrics.held_out_reward_delta))
    assert reward is not None
    assert delta is not None
    assert reward.value == pytest.approx(5 / 6)
    assert delta.value == pytest.approx(1 / 6)
    assert delta.low == 0
    assert delta.high is not None
    assert 1 / 6 < delta.high <= 0.5


@pytest.mark.parametrize("judge", ["Live", "Lagged", "Base"])
def test_the_base_model_judges_whoever_judges_in_training(
    tmp_path: Path, judged_by: Callable[..., ScriptedModel], judge: str
) -> None:
    model: Any = judged_by()
    judges = judges_of(tmp_path, params(JudgingSettings.model_validate({"judge": judge})))
    assert set(model.policies) == {"base"}
    assert list(judges.judges) == ["base"]


def test_delimiters_and_digest_are_those_of_every_iteration(
    tmp_path: Path, judged_by: Callable[..., ScriptedModel]
) -> None:
    judged_by()
    first, fifth = (judges_of(tmp_path, params(), iteration) for iteration in (0, 4))
    assert first.seed("delimiters") == fifth.seed("delimiters")
    assert first.digest == fifth.digest
    contexts = [context_of(tmp_path, params(), iteration) for iteration in (0, 4)]
    assert len({context.seed("delimiters") for context in contexts}) == 2, "other seeds differ"


def test_of_the_policy_and_the_base_model_in_a_panel_one_is_asked_and_both_count(
    tmp_path: Path, judged_by: Callable[..., ScriptedModel], held: dict[str, list[AnswerRow]]
) -> None:
    model = judged_by()
    panel = JudgingSettings(
        judges=(
            JudgeSettings(name="self", judge=PanelJudge.LIVE, weight=1),
            JudgeSettings(name="start", judge=PanelJudge.BASE, weight=3),
            JudgeSettings(name="watcher", judge=PanelJudge.LAGGED, weight=0),
        )
    )
    judges = judges_of(tmp_path, params(panel))
    assert judges.rule.weights == {"self": 1, "start": 3}
    assert rewards(reward_answers(judges, held, policy=POLICY)["base"]) == [0.5, 1.0, 0.5]
    assert len(model.turns) == 5


def test_a_model_at_an_endpoint_counts_with_its_weight(held: dict[str, list[AnswerRow]], tmp_path: Path) -> None:
    panel = JudgingSettings.model_validate(
        {"judges": [{"name": "self", "judge": "Live"}, {"name": "out", "judge": "Endpoint", "endpoint": ENDPOINT}]}
    )
    judges = judges_of(tmp_path, params(panel))
    assert list(judges.judges) == ["self", "out"]
    strict = ScriptedModel(digit=lambda message: 0.0, takes_prefill=False)
    own, outside = judges.judges["self"], judges.judges["out"]
    assert isinstance(outside.model, EndpointModel)
    assert outside.model.endpoint.patience >= 16, "one request that fails does not cost all rewards"
    asked = {"self": replace(own, model=ScriptedModel(digit=praise)), "out": replace(outside, model=strict)}
    rewarded = reward_answers(replace(judges, judges=asked), held, policy=POLICY)
    assert rewards(rewarded["base"]) == [0.25, 0.5, 0.25]


class DeadModel(ScriptedModel):
    """A server that is out of reach."""

    def choose(self, *args: Any, **kwargs: Any) -> list[list[float]]:
        raise EndpointError("http://judge:8000 is out of reach")


@pytest.mark.parametrize(("quorum", "expected"), [(1, [0.5, 1.0, 0.5]), (None, None)])
def test_a_server_that_fails_costs_its_own_reward_and_never_the_evaluation(
    tmp_path: Path,
    judged_by: Callable[..., ScriptedModel],
    held: dict[str, list[AnswerRow]],
    quorum: int | None,
    expected: list[float] | None,
) -> None:
    judged_by()
    panel = JudgingSettings.model_validate(
        {
            "minJudges": quorum,
            "judges": [{"name": "self", "judge": "Live"}, {"name": "out", "judge": "Endpoint", "endpoint": ENDPOINT}],
        }
    )
    judges = judges_of(tmp_path, params(panel))
    judges.judges = {**judges.judges, "out": FixedJudge(DeadModel(takes_prefill=False), panel)}
    rewarded = reward_answers(judges, held, policy=POLICY)
    told = explain_missing(judges, rewarded, POLICY)
    if expected is not None:
        assert rewards(rewarded["base"]) == expected
        assert told == ""
        return
    assert all(math.isnan(row["reward"]) for row in rewarded["base"])
    assert held_out_metrics(rewarded[POLICY.version], rewarded["base"], **OPTIONS) == dict.fromkeys(
        (*EvaluateMetrics.held_out_reward.parts, *EvaluateMetrics.held_out_reward_delta.parts)
    )
    assert told.startswith("6 of 6 held-out answers have no reward")
    assert "http://judge:8000 is out of reach" in told


def test_verifiers_and_penalties_are_those_of_the_training_reward(
    tmp_path: Path, judged_by: Callable[..., ScriptedModel], held: dict[str, list[AnswerRow]]
) -> None:
    judged_by()
    digit = RewardSettings.model_validate({"name": "digit", "type": "Regex", "pattern": r"\d", "weight": 1})
    found = params(JudgingSettings(penalties=Penalties(truncated=0.25)), rewards=(digit,))
    valued: dict[str, list[AnswerRow]] = {
        version: [{**row, "verifiers": {"digit": 1.0}, "finish_reason": "length"} for row in rows]
        for version, rows in held.items()
    }
    rewarded = reward_answers(judges_of(tmp_path, found), valued, policy=POLICY)
    assert rewards(rewarded["base"]) == [0.5, 0.75, 0.5], "(0.5 + 1) / 2 - 0.25"


def test_a_judge_without_weight_is_not_asked(
    tmp_path: Path, judged_by: Callable[..., ScriptedModel], held: dict[str, list[AnswerRow]]
) -> None:
    model = judged_by()
    digit = RewardSettings.model_validate({"name": "digit", "type": "Regex", "pattern": r"\d"})
    found = params(JudgingSettings(weight=0), rewards=(digit,))
    valued: dict[str, list[AnswerRow]] = {
        version: [{**row, "verifiers": {"digit": 1.0}} for row in rows] for version, rows in held.items()
    }
    assert rewards(reward_answers(judges_of(tmp_path, found), valued, policy=POLICY)["base"]) == [1.0] * 3
    assert model.turns == []


def evaluate(context: StageContext[EvaluateParams], held: dict[str, list[AnswerRow]]) -> dict[str, list[AnswerRow]]:
    held_out = HeldOut(context, open_fixed_judges(context, ENGINE, {}), read_earlier_answers(context))
    return held_out.reward(held, Progress(context, 10))


def test_the_base_model_s_rewards_are_taken_over_from_an_earlier_evaluation(
    tmp_path: Path, judged_by: Callable[..., ScriptedModel], held: dict[str, list[AnswerRow]]
) -> None:
    judged_by()
    earlier = context_of(tmp_path, params())
    before = evaluate(earlier, held)
    model = judged_by()
    later = context_of(tmp_path, params(), 1, **{Input.CAPABILITY: earlier.folder})
    after = evaluate(later, {"base": held["base"], POLICY.version: answers(POLICY.version, "new", "new", "new")})
    assert rewards(after["base"]) == rewards(before["base"])
    assert len(model.turns) == 3, "the policy's answers alone"
    changed = judged_by()
    other = params(JudgingSettings.model_validate({"aggregate": "Minimum"}))
    evaluate(context_of(tmp_path, other, 2, **{Input.CAPABILITY: earlier.folder}), held)
    assert len(changed.turns) == 5, "another way of judging: nothing is taken over"


def test_an_attempt_that_is_repeated_asks_nothing_again_and_leaves_the_file_as_it_is(
    tmp_path: Path, judged_by: Callable[..., ScriptedModel], held: dict[str, list[AnswerRow]]
) -> None:
    judged_by()
    context = context_of(tmp_path, params())
    held = {"base": held["base"], "iteration-007": answers("iteration-007", "a", "b", "c"), **held}
    first = evaluate(context, held)
    path = context.folder / ANSWERS_FILE
    rows, before = read_rows(path, ANSWER), path.stat().st_ino
    model = judged_by()
    again = evaluate(context, {version: [row for row in rows if row["policy"] == version] for version in held})
    assert rewards(again[POLICY.version]) == rewards(first[POLICY.version])
    assert model.turns == []
    assert path.stat().st_ino == before
    assert all(math.isnan(row["reward"]) for row in again["iteration-007"]), "only the policy and the base model"


def test_answers_of_an_older_version_have_no_rewards_and_are_judged(
    tmp_path: Path, judged_by: Callable[..., ScriptedModel], held: dict[str, list[AnswerRow]]
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    write_rows(old / ANSWERS_FILE, held["base"], ANSWER)
    model = judged_by()
    evaluate(context_of(tmp_path, params(), 1, **{Input.CAPABILITY: old}), held)
    assert len(model.turns) == 5
