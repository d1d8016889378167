"""Nothing is hard-wired to four aspects or their names: prompts, generate and judge with the second objective."""

from pathlib import Path

import pytest

from dynalign_contract.agents import AgentsSettings, AuthorSettings
from dynalign_contract.config import GenerateParams, JudgeParams, PromptsParams
from dynalign_contract.layout import PROMPTS_FILE
from dynalign_contract.metrics import JudgeMetrics, read_metrics
from dynalign_contract.objective import BUILTIN, builtin_objective
from dynalign_contract.records import JUDGEMENT, PROMPT, read_parts, read_rows
from dynalign_contract.settings import (
    CanarySettings,
    DedupSettings,
    GenerationSettings,
    JudgingMethod,
    JudgingSettings,
    PromptSettings,
)
from dynalign_contract.stages import Stage
from lab.testbed import load_testbed
from support.judging_data import StageRun, write_author

pytestmark = pytest.mark.slow

OBJECTIVE = builtin_objective(BUILTIN[1])
ASPECTS = [aspect.id for aspect in OBJECTIVE.aspects]


def test_prompts_generate_and_judge_know_only_what_the_objective_says(tmp_path: Path) -> None:
    write_author(load_testbed().model, tmp_path / "author", OBJECTIVE)
    run = StageRun.of(tmp_path, tmp_path / "author", window=1024)
    settings = PromptSettings(
        per_iteration=4,
        held_out=2,
        min_characters=4,
        min_yield=0.25,
        agents=AgentsSettings(author=AuthorSettings(max_tokens=24)),
        dedup=DedupSettings(threshold=1.0),
    )
    prompts = run.execute(run.config(PromptsParams(objective=OBJECTIVE, prompts=settings, reserve_tokens=24), {}))
    assert prompts.artifact is not None, prompts.error
    rows = read_rows(run.root / prompts.artifact.path / PROMPTS_FILE, PROMPT)
    assert all(set(row["facets"]) == set(OBJECTIVE.facets) for row in rows)
    assert all(0 <= row["critic_score"] <= 9 for row in rows)

    generation = GenerationSettings(candidates=2, max_tokens=16)
    rollouts = run.execute(run.config(GenerateParams(generation=generation), {"prompts": prompts.artifact}))
    assert rollouts.artifact is not None, rollouts.error

    judging = JudgingSettings(
        method=JudgingMethod.VOTES,
        votes=2,
        rationale_tokens=8,
        min_mass=0.0,
        canaries=CanarySettings(prompts=1, injections=1),
    )
    params = JudgeParams(objective=OBJECTIVE, judging=judging, max_tokens=16, prompts_per_part=2)
    judged = run.execute(run.config(params, {"rollouts": rollouts.artifact}))
    assert judged.artifact is not None, judged.error
    found = read_metrics(Stage.JUDGE, judged.metrics)
    assert list(JudgeMetrics.aspect_reward.members(found)) == ASPECTS
    judgements = read_parts([run.root / judged.artifact.path], JUDGEMENT)
    assert len(judgements) == 2 * len(rows)
    for row in judgements:
        assert [score["aspect"] for score in row["scores"]] == ASPECTS
        assert row["raw_reward"] == pytest.approx(min(score["score"] for score in row["scores"]) / 9, abs=1e-6)
