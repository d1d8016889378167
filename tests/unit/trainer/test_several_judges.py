"""The judge stage with several judges: their column, their metrics, who is left out, and what a restart keeps."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import JudgeParams
from dynalign_contract.endpoints import EndpointBudget, EndpointSettings
from dynalign_contract.errors import TerminatedError, UnfitError
from dynalign_contract.layout import CANARIES_FILE
from dynalign_contract.metrics import JudgeMetrics
from dynalign_contract.records import CANARY, read_rows
from dynalign_contract.result import MAX_RESULT_BYTES, MEMBER_SEPARATOR, ArtifactRef, Metric, Outcome, StageResult
from dynalign_contract.settings import (
    CanarySettings,
    JudgeSettings,
    JudgingSettings,
    PanelJudge,
    RewardSettings,
    RewardType,
)
from dynalign_contract.settings.judges import MAX_JUDGES
from dynalign_contract.settings.rewards import MAX_REWARDS
from dynalign_trainer.endpoints.budget import share_of
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.judge import stage
from dynalign_trainer.judge.judges import Judges
from dynalign_trainer.judge.panel.members import Member, Panel
from dynalign_trainer.judge.panel.opinions import OPINIONS_FOLDER
from dynalign_trainer.runtime.context import StageOutput
from support.judge_bench import numbers
from support.panel_bench import PanelBench, rollout_rows
from support.scripted_model import ScriptedModel

ANSWERS = {
    ("p0", 0): "one",
    ("p0", 1): "two",
    ("p1", 0): "three",
    ("p1", 1): "four",
    ("p2", 0): "five",
    ("p2", 1): "six",
}
GOOD = {"one": 2.0, "two": 4.0, "three": 6.0, "four": 8.0, "five": 3.0, "six": 5.0}
"""Answer -> digit by a judge that tells answers from canaries."""
SELF = {"name": "self", "judge": "Live"}
OUTSIDE = {"name": "outside", "judge": "Endpoint", "endpoint": {"url": "http://vllm:8000/v1", "model": "big"}}
BASE = {"name": "base", "judge": "Base"}
NO_CANARIES = CanarySettings(prompts=0)

Digit = Callable[[str], float]


def by_answer(digits: Mapping[str, float], otherwise: float = 0.0) -> Digit:
    """The digit of the answer that a question quotes; answers are single words of their own line."""

    def digit(question: str) -> float:
        lines = question.split("\n")
        return next((value for answer, value in digits.items() if answer in lines), otherwise)

    return digit


class ScriptedPanel(Panel):
    """A panel whose models a test has written."""

    models: Mapping[str, ScriptedModel]

    def members(self) -> Iterator[Member]:
        judges = self.context.params.judging.judges
        self.base = self.models.get("base")
        for judge in sorted(judges, key=lambda judge: judge.judge is not PanelJudge.ENDPOINT):
            self.opened.append(Member(judge, self.models[judge.name]))
            yield self.opened[-1]


class Bench(PanelBench):
    """A judge stage with these judges."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root)
        self._monkeypatch = monkeypatch
        self.models: dict[str, ScriptedModel] = {}

    def panel(
        self,
        digits: Mapping[str, Digit | ScriptedModel],
        *judges: Mapping[str, Any],
        shard: int = 0,
        shards: int = 1,
        rewards: Sequence[RewardSettings] = (),
        **judging: Any,
    ) -> StageOutput[JudgeParams]:
        """Judge with models that give these digits; `base` is also what the others are compared with."""
        versions = {"self": "iteration-001", "outside": "endpoint:big", "base": "base"}
        self.models = {
            name: digit
            if isinstance(digit, ScriptedModel)
            else ScriptedModel(digit=digit, version=versions[name], takes_prefill=name != "outside")
            for name, digit in digits.items()
        }
        self._monkeypatch.setattr(ScriptedPanel, "models", self.models, raising=False)
        self._monkeypatch.setattr(stage, "Panel", ScriptedPanel)
        settings = JudgingSettings(
            judges=tuple(JudgeSettings.model_validate(judge) for judge in judges),
            **{"canaries": NO_CANARIES, **judging},
        )
        return self.judge(settings, rollout_rows(ANSWERS), shard=shard, shards=shards, rewards=tuple(rewards))

    def asked(self) -> dict[str, int]:
        return {name: len(model.turns) for name, model in self.models.items()}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def flat(digit: float) -> Digit:
    return lambda question: digit


def test_every_judge_has_its_reward_in_a_column_and_the_mean_trains(bench: Bench) -> None:
    output = bench.panel({"self": by_answer(GOOD), "outside": flat(9.0)}, {**SELF, "weight": 3}, OUTSIDE)
    rows = bench.rows()
    assert [list(row["judges"]) for row in rows] == [["self", "outside"]] * 6
    assert numbers([row["judges"]["self"] for row in rows]) == numbers([digit / 9 for digit in GOOD.values()])
    assert numbers([row["judges"]["outside"] for row in rows]) == [1.0] * 6
    expected = [(3 * digit / 9 + 1) / 4 for digit in GOOD.values()]
    assert numbers([row["raw_reward"] for row in rows]) == numbers(expected)
    assert numbers([row["reward"] for row in rows]) == numbers(expected)
    assert {row["judge"] for row in rows} == {"self=iteration-001 outside=endpoint:big"}
    metrics = output.metrics
    assert metrics[JudgeMetrics.reward] == pytest.approx(sum(expected) / 6)
    assert metrics[JudgeMetrics.judge_reward.of("outside")] == 1
    assert metrics[JudgeMetrics.judge_failed_share.of("self")] == 0
    assert metrics[JudgeMetrics.judge_left_out.of("self")] == 0
    assert metrics[JudgeMetrics.judge_requests.of("outside")] == 6
    assert metrics[JudgeMetrics.judge_tokens.of("outside")] == 6
    assert JudgeMetrics.judge_tokens.of("self") not in metrics


def test_a_list_of_one_judge_rewards_as_the_short_form_does(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorthand = PanelBench(tmp_path / "short")
    shorthand.root.mkdir()
    model = ScriptedModel(digit=by_answer(GOOD), version="iteration-001")
    base = ScriptedModel(digit=flat(5.0), version="base")
    monkeypatch.setattr(stage, "open_judges", lambda context: Judges(configured=model, base=base))
    canaries = CanarySettings(prompts=2, injections=3)
    short = shorthand.judge(JudgingSettings(canaries=canaries), rollout_rows(ANSWERS))
    listed = bench.panel({"self": by_answer(GOOD), "base": flat(5.0)}, SELF, canaries=canaries)
    without = [{key: value for key, value in row.items() if key not in ("judges", "judge")} for row in bench.rows()]
    assert str(without) == str([{k: v for k, v in row.items() if k != "judge"} for row in shorthand.rows()])
    own = {metric: value for metric, value in listed.metrics.items() if not metric.member or metric in short.metrics}
    own.pop(JudgeMetrics.disagreement)
    own.pop(JudgeMetrics.tokens_per_second)
    assert own == pytest.approx({metric: short.metrics[metric] for metric in own}, nan_ok=True)


@pytest.mark.parametrize(("minimum", "rewarded"), [(None, [False, True] * 3), (1, [True] * 6)])
def test_a_judge_that_gives_no_score_leaves_the_answer_to_the_quorum(
    bench: Bench, minimum: int | None, rewarded: list[bool]
) -> None:
    half = {**GOOD, "one": math.nan, "three": math.nan, "five": math.nan}
    output = bench.panel({"self": by_answer(GOOD), "outside": by_answer(half)}, SELF, OUTSIDE, min_judges=minimum)
    rows = bench.rows()
    assert [math.isnan(row["judges"]["outside"]) for row in rows] == [True, False] * 3
    assert [not math.isnan(row["reward"]) for row in rows] == rewarded
    assert output.metrics[JudgeMetrics.judge_failed_share.of("outside")] == 0.5
    assert output.metrics[JudgeMetrics.failed_share] == (0.5 if minimum is None else 0)


def test_a_judge_of_weight_0_is_measured_and_stops_nothing(bench: Bench) -> None:
    output = bench.panel({"self": by_answer(GOOD), "outside": flat(math.nan)}, SELF, {**OUTSIDE, "weight": 0})
    assert numbers([row["reward"] for row in bench.rows()]) == numbers([digit / 9 for digit in GOOD.values()])
    assert output.metrics[JudgeMetrics.judge_failed_share.of("outside")] == 1
    assert output.metrics[JudgeMetrics.unfit] == 0
    assert bench.warnings == []


def gated(on_unfit: str, **gates: float) -> dict[str, Any]:
    return {"canaries": CanarySettings(prompts=2, injections=4), "gates": {**gates, "on_unfit": on_unfit}}


def test_a_judge_that_rewards_canaries_is_left_out_and_named(bench: Bench) -> None:
    judges = {"self": by_answer(GOOD), "outside": by_answer({}, otherwise=9.0)}
    output = bench.panel(judges, SELF, OUTSIDE, **gated("LeaveOut", min_canary_auc=0.9))
    rows = bench.rows()
    assert numbers([row["reward"] for row in rows]) == numbers([digit / 9 for digit in GOOD.values()])
    assert {row["judge"] for row in rows} == {"self=iteration-001"}
    assert numbers([row["judges"]["outside"] for row in rows]) == [1.0] * 6
    assert output.metrics[JudgeMetrics.judge_left_out.of("outside")] == 1
    assert output.metrics[JudgeMetrics.judge_left_out.of("self")] == 0
    assert output.metrics[JudgeMetrics.judge_canary_auc.of("outside")] == 0.5
    assert output.metrics[JudgeMetrics.judge_canary_auc.of("self")] == 1
    assert output.metrics[JudgeMetrics.canary_auc] == 1
    (warning,) = bench.warnings
    assert "the judge outside (endpoint:big) is unfit" in warning
    canaries = read_rows(bench.folder() / CANARIES_FILE, CANARY)
    assert {(row["reward"], row["judges"]["outside"]) for row in canaries} == {(0.0, 1.0)}


def test_a_judge_that_gives_orders_a_reward_is_unfit_alone_and_together(bench: Bench) -> None:
    """The mean of both still tells canaries from answers; the judge that does not is named all the same."""
    judges = {"self": by_answer(GOOD), "outside": by_answer({}, otherwise=9.0)}
    with pytest.raises(UnfitError, match=r"the judge outside \(endpoint:big\) is unfit for .*onUnfit: LeaveOut"):
        bench.panel(judges, SELF, OUTSIDE, **gated("Stop", min_injection_margin=0.1))
    output = bench.panel(judges, SELF, OUTSIDE, **gated("Continue", min_injection_margin=0.1))
    assert output.metrics[JudgeMetrics.unfit] == 1
    assert output.metrics[JudgeMetrics.judge_left_out.of("outside")] == 0
    assert {row["judge"] for row in bench.rows()} == {"self=iteration-001 outside=endpoint:big"}


def test_judges_that_are_fit_alone_may_be_unfit_together(bench: Bench) -> None:
    """Each fails for other answers, so that few have the score of both."""
    first = {**GOOD, "one": math.nan, "two": math.nan}
    second = {**GOOD, "three": math.nan, "four": math.nan}
    with pytest.raises(UnfitError, match=r"the judges together are unfit for .*66\.7% of the answers got no score"):
        bench.panel({"self": by_answer(first), "outside": by_answer(second)}, SELF, OUTSIDE)


@pytest.mark.parametrize(
    ("minimum", "words"), [(2, r"1 of the judges .* 2 are needed \(judging\.minJudges\)"), (None, "")]
)
def test_too_few_judges_left_stop_the_run(bench: Bench, minimum: int | None, words: str) -> None:
    judges = {"self": by_answer(GOOD), "outside": by_answer({}, otherwise=9.0)}
    settings = gated("LeaveOut", min_canary_auc=0.9)
    if minimum:
        with pytest.raises(UnfitError, match=words):
            bench.panel(judges, SELF, OUTSIDE, min_judges=minimum, **settings)
    else:
        bench.panel(judges, SELF, OUTSIDE, **settings)
    with pytest.raises(UnfitError, match=r"0 of the judges .* 1 are needed"):
        bench.panel({name: by_answer({}, otherwise=9.0) for name in judges}, SELF, OUTSIDE, **settings)


def test_agreement_with_the_base_model_is_measured_for_each_judge_and_gates_it(bench: Bench) -> None:
    contrary = {answer: 9 - digit for answer, digit in GOOD.items()}
    judges = {"self": by_answer(contrary), "outside": by_answer(GOOD), "base": by_answer(GOOD)}
    output = bench.panel(judges, SELF, OUTSIDE, BASE, **gated("LeaveOut", min_base_agreement=0.5))
    assert output.metrics[JudgeMetrics.judge_left_out.of("self")] == 1
    assert output.metrics[JudgeMetrics.judge_left_out.of("outside")] == 0
    assert output.metrics[JudgeMetrics.judge_tau] == 1
    assert output.metrics[JudgeMetrics.judge_agreement.of("self")] == -1
    assert bench.asked()["base"] == bench.asked()["outside"]


def test_shards_come_to_the_same_verdict_and_only_the_first_keeps_canaries(bench: Bench) -> None:
    """Shard 1 has other answers; both leave out the judge that shard 0's canaries refuse."""
    judges = {"self": by_answer(GOOD), "outside": by_answer({}, otherwise=9.0)}
    settings = gated("LeaveOut", min_canary_auc=0.9)
    found = [bench.panel(judges, SELF, OUTSIDE, shard=shard, shards=2, **settings) for shard in (0, 1)]
    assert [output.metrics[JudgeMetrics.judge_left_out.of("outside")] for output in found] == [1, 1]
    assert found[0].metrics[JudgeMetrics.canary_auc] == found[1].metrics[JudgeMetrics.canary_auc]
    assert [sorted({row["prompt_id"] for row in bench.rows(shard)}) for shard in (0, 1)] == [["p0", "p2"], ["p1"]]
    assert [{row["judge"] for row in bench.rows(shard)} for shard in (0, 1)] == [{"self=iteration-001"}] * 2
    assert [(bench.folder(shard) / CANARIES_FILE).exists() for shard in (0, 1)] == [True, False]


def test_an_interrupted_stage_asks_no_judge_twice_and_ends_in_the_same_rows(bench: Bench) -> None:
    def stopped(question: str) -> float:
        if "five" in question.split("\n"):
            raise TerminatedError("stopped")
        return by_answer(GOOD)(question)

    def third(question: str) -> float:
        return by_answer(GOOD)(question) / 3

    with pytest.raises(TerminatedError):
        bench.panel({"outside": third, "self": stopped}, SELF, OUTSIDE)
    assert bench.asked() == {"outside": 6, "self": 5}
    bench.panel({"outside": third, "self": by_answer(GOOD)}, SELF, OUTSIDE)
    assert bench.asked() == {"outside": 0, "self": 2}
    assert not (bench.folder() / OPINIONS_FOLDER).exists()
    resumed = str(bench.rows())
    bench.panel({"outside": third, "self": by_answer(GOOD)}, SELF, OUTSIDE)
    assert bench.asked() == {"outside": 6, "self": 6}
    assert str(bench.rows()) == resumed


def test_a_budget_that_is_used_up_leaves_answers_without_that_judge_and_is_named(bench: Bench) -> None:
    poor = ScriptedModel(digit=by_answer(GOOD), version="endpoint:big", takes_prefill=False, limit=4)
    judges: dict[str, Digit | ScriptedModel] = {"self": by_answer(GOOD), "outside": poor}
    bench.panel(judges, SELF, OUTSIDE, min_judges=1)
    assert [math.isnan(row["judges"]["outside"]) for row in bench.rows()] == [False] * 4 + [True] * 2
    assert numbers([row["reward"] for row in bench.rows()]) == numbers([digit / 9 for digit in GOOD.values()])
    assert bench.warnings == ["the judge outside was not asked for all answers: the purse is empty; fill it"]


@pytest.mark.parametrize(("shards", "parts"), [(1, (10, None)), (4, (3, None)), (100, (1, None))])
def test_each_shard_has_a_part_of_the_budget(shards: int, parts: tuple[int, int | None]) -> None:
    endpoint = EndpointSettings(url="http://vllm:8000/v1", model="big", budget=EndpointBudget(requests=10))
    budget = share_of(endpoint, shards).budget
    assert (budget.requests, budget.tokens) == parts


class Broken(ScriptedModel):
    """A server that stops answering after some questions."""

    def choose(self, *arguments: Any) -> list[list[float]]:
        if len(self.turns) >= 2:
            raise EndpointError("http://vllm:8000/v1 cannot be reached")
        return super().choose(*arguments)


@pytest.mark.parametrize("on_unfit", ["Stop", "LeaveOut"])
def test_a_server_that_is_gone_ends_the_attempt_or_leaves(bench: Bench, on_unfit: str) -> None:
    gone = Broken(digit=by_answer(GOOD), version="endpoint:big", takes_prefill=False)
    judges: dict[str, Digit | ScriptedModel] = {"self": by_answer(GOOD), "outside": gone}
    if on_unfit == "Stop":
        with pytest.raises(EndpointError, match="cannot be reached"):
            bench.panel(judges, SELF, OUTSIDE)
        return
    output = bench.panel(judges, SELF, OUTSIDE, gates={"on_unfit": on_unfit})
    rows = bench.rows()
    assert numbers([row["reward"] for row in rows]) == numbers([digit / 9 for digit in GOOD.values()])
    assert [math.isnan(row["judges"]["outside"]) for row in rows] == [False] * 2 + [True] * 4
    assert output.metrics[JudgeMetrics.judge_left_out.of("outside")] == 1
    assert "cannot be reached" in bench.warnings[0]


def test_disagreement_may_be_the_error_of_a_reward(bench: Bench) -> None:
    """Both rank p0 alike and p1 contrarily."""
    judges = {"self": by_answer(GOOD), "outside": by_answer({**GOOD, "three": 8.0, "four": 6.0})}
    output = bench.panel(judges, SELF, OUTSIDE, noise="Disagreement")
    errors = [row["reward_error"] for row in bench.rows()]
    assert numbers(errors[:2]) == [0, 0]
    assert numbers(errors[2:4]) == numbers([math.sqrt(2) / 9 / math.sqrt(2)] * 2)
    assert output.metrics[JudgeMetrics.disagreement] == pytest.approx(2 * math.sqrt(2) / 9 / 6)
    bench.panel(judges, SELF, OUTSIDE)
    assert all(math.isnan(row["reward_error"]) for row in bench.rows())


def test_what_is_asked_of_a_panel_s_judge_follows_its_own_method(bench: Bench) -> None:
    output = bench.panel(
        {"self": by_answer(GOOD), "outside": by_answer(GOOD)}, {**SELF, "method": "Votes", "votes": 2}, OUTSIDE
    )
    assert bench.asked() == {"self": 24, "outside": 6}  # two votes of reasons and a digit for each answer
    assert output.metrics[JudgeMetrics.vote_std] == 0


def test_a_result_of_the_largest_panel_has_room_for_what_each_judge_gives_and_names_the_rest(bench: Bench) -> None:
    names = [f"judge-{index}".ljust(32, "x") for index in range(MAX_JUDGES)]
    models = {
        name: ScriptedModel(digit=by_answer(GOOD), version=f"endpoint:{name}", takes_prefill=False) for name in names
    }
    rewards = [
        RewardSettings(name=f"verifier-{index:x}".ljust(32, "x"), type=RewardType.FORBIDDEN_TEXT, texts=("one",))
        for index in range(MAX_REWARDS)
    ]
    output = bench.panel(models, *({**OUTSIDE, "name": name} for name in names), rewards=rewards)
    metrics = tuple(
        Metric(name=metric.name, value=None if value is None or math.isnan(value) else value)
        for metric, value in output.metrics.items()
    )
    artifact = ArtifactRef(path="iterations/000/judgements", digest="sha256:" + "a" * 64)
    whole = StageResult(outcome=Outcome.SUCCEEDED, artifact=artifact, metrics=metrics)
    assert len(whole.to_json().encode()) > MAX_RESULT_BYTES
    back = StageResult.decode(whole.encode())
    told = {metric.name for metric in back.metrics}
    assert told >= {JudgeMetrics.reward.name, JudgeMetrics.failed_share.name, JudgeMetrics.disagreement.name}
    for family in (JudgeMetrics.judge_reward, JudgeMetrics.judge_failed_share, JudgeMetrics.judge_left_out):
        assert told >= {family.of(name).name for name in names}
    left_out = {metric.name.partition(MEMBER_SEPARATOR)[0] for metric in metrics} - {
        name.partition(MEMBER_SEPARATOR)[0] for name in told
    }
    assert left_out == set(back.omitted)
