"""What counts as a difference between a recorded judgement and the judge's scores of today, and what cannot be compared."""

import math
from pathlib import Path
from typing import Any, cast

import pytest

from dynalign_contract.config import JudgeParams, StageConfig
from dynalign_contract.inputs import Input
from dynalign_contract.layout import part_name
from dynalign_contract.records import JUDGEMENT, JudgementRow, write_rows
from dynalign_contract.rescore import EXACT_TOLERANCE, SAMPLED_TOLERANCE, JudgedArtifact, RescoreOrder
from dynalign_contract.settings import JudgingMethod, JudgingSettings
from dynalign_trainer.judge.comparing import Rescored, compare_panel, compare_single, largest_difference, tolerance_of
from dynalign_trainer.judge.rescore import rescore, sample
from dynalign_trainer.judge.rewarding import Opinion, build_judgement, score_rows
from dynalign_trainer.scoring.pointwise import AspectScore, CandidateScore
from lab.processes import free_port
from support.finished_runs import seal
from support.judging_data import StageRun, rule_objective, written_rollouts

OBJECTIVE = rule_objective()
PARAMS = JudgeParams(objective=OBJECTIVE, judging=JudgingSettings(), max_tokens=64, prompts_per_part=2)
ROLLOUT: Any = {
    "prompt_id": "p000",
    "candidate": 1,
    "completion_ids": [1, 2, 3],
    "finish_reason": "stop",
    "text": "Rest more, and sleep well.",
    "messages": [{"role": "user", "content": "How?"}],
}


def score(points: float) -> CandidateScore:
    aspects = tuple(AspectScore(points, 0.9) for _ in OBJECTIVE.aspects)
    return CandidateScore(aspects, reward=points / 9, error=math.nan, retries=0, truncated=False)


def judgement(points: float, **changes: Any) -> JudgementRow:
    opinion = Opinion(score_rows(OBJECTIVE, score(points)), points / 9, math.nan, 0)
    made = build_judgement(PARAMS, {}, ROLLOUT, opinion, {}, judge="base")
    return cast("JudgementRow", {**made, **changes})


def compared(recorded: JudgementRow, points: float, tolerance: float = EXACT_TOLERANCE) -> Rescored:
    return compare_single(PARAMS, 0, rollout=ROLLOUT, recorded=recorded, score=score(points), tolerance=tolerance)


def test_the_same_scores_differ_in_nothing() -> None:
    found = compared(judgement(6.0), 6.0)
    assert found.differences == ()
    assert max(found.distances) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("points", "differs"), [(6.2, False), (6.3, True), (5.8, False), (5.7, True)])
def test_a_score_may_differ_by_the_tolerance(points: float, differs: bool) -> None:
    assert bool(compared(judgement(6.0), points).differences) is differs


def test_a_reward_that_does_not_follow_from_its_scores_is_found() -> None:
    (difference,) = compared(judgement(6.0, reward=0.99), 6.0).differences
    assert (difference.what, difference.recorded, difference.judge) == ("reward", 0.99, "base")
    assert difference.rescored == pytest.approx(6 / 9, abs=1e-5)
    assert difference.tolerance == pytest.approx(EXACT_TOLERANCE / 9)


def test_no_number_where_there_was_one_is_a_difference_and_none_in_both_is_not() -> None:
    assert {one.what for one in compared(judgement(6.0), math.nan).differences} >= {"raw_reward", "reward"}
    assert compared(judgement(math.nan), math.nan).differences == ()


def test_a_judge_of_several_is_compared_by_its_reward() -> None:
    recorded = judgement(6.0, judges={"self": 0.6, "outside": math.nan})
    given: Any = {"recorded": recorded, "reward": 0.62, "tolerance": 0.25}
    assert compare_panel(0, judge="self", **given).differences == ()
    (difference,) = compare_panel(0, judge="outside", **given).differences
    assert (difference.recorded, difference.rescored) == (None, 0.62)


def test_the_largest_difference_is_that_of_two_numbers() -> None:
    assert largest_difference([]) is None
    assert largest_difference([compared(judgement(6.0), 6.5), compared(judgement(6.0), math.nan)]) == pytest.approx(0.5)


def test_sampled_text_and_servers_have_a_wider_tolerance() -> None:
    votes = JudgingSettings(method=JudgingMethod.VOTES, votes=3)
    assert tolerance_of(JudgingSettings(), None, is_outside=False) == EXACT_TOLERANCE
    assert tolerance_of(votes, None, is_outside=False) == SAMPLED_TOLERANCE
    assert tolerance_of(JudgingSettings(), None, is_outside=True) == SAMPLED_TOLERANCE
    assert tolerance_of(votes, 0.1, is_outside=True) == 0.1


def test_a_sample_is_the_same_for_the_same_artifact_and_has_no_candidate_twice() -> None:
    keys = [(f"p{number}", candidate) for number in range(9) for candidate in range(3)]
    drawn = sample(keys, 5, "sha256:a")
    assert len(drawn) == 5
    assert drawn == sample(list(reversed(keys)), 5, "sha256:a")
    assert drawn != sample(keys, 5, "sha256:b")
    assert sample(keys, 100, "sha256:a") == set(keys)


def a_judged_run(root: Path, model: Path, judging: dict[str, Any]) -> tuple[StageConfig, JudgedArtifact]:
    """A run with judgements that nobody has made."""
    stages = StageRun.of(root, model)
    settings = JudgingSettings.model_validate(judging)
    params = PARAMS.model_copy(update={"judging": settings})
    rows = written_rollouts(model, OBJECTIVE, prompts=2, candidates=2)
    config = stages.config(params, {Input.ROLLOUTS: stages.rollouts(rows)}, [params.judge], 1)
    folder = root / config.folder
    folder.mkdir(parents=True)
    given = [judgement(6.0, prompt_id=row["prompt_id"], candidate=row["candidate"]) for row in rows]
    write_rows(folder / part_name(0), given, JUDGEMENT)
    return config, JudgedArtifact(config=config, artifact=seal(root, config.folder, config), candidates=2)


def test_a_judge_behind_a_server_that_does_not_answer_is_named(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    endpoint = {"url": url, "model": "m", "retries": 0}
    judges = {"judges": [{"name": "outside", "judge": "Endpoint", "endpoint": endpoint}]}
    _, judged = a_judged_run(tmp_path, tiny_model, judges)
    report = rescore(RescoreOrder(root=str(tmp_path), judged=judged))
    assert report.rescored == 0
    (sentence,) = report.refused
    assert url in sentence


def test_inputs_that_are_gone_are_named(tiny_model: Path, tmp_path: Path) -> None:
    config, judged = a_judged_run(tmp_path, tiny_model, {})
    (tmp_path / config.inputs[Input.MODEL].path / "config.json").unlink()
    report = rescore(RescoreOrder(root=str(tmp_path), judged=judged))
    (sentence,) = report.refused
    assert sentence.startswith(f"{judged.artifact.path}: ")
    assert "config.json" in sentence
