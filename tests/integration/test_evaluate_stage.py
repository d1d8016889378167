"""The evaluate stage on a real engine: answers, comparisons by points and by pairs, and what is said about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import EvaluateParams, Policy, StageConfig
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import ANSWERS_FILE, CAPABILITY_FILE, COMPARISONS_FILE, MANIFEST, RATINGS_FILE
from dynalign_contract.manifest import read_listed
from dynalign_contract.records import (
    ANSWER,
    CAPABILITY,
    COMPARISON,
    RATING,
    AnswerRow,
    ComparisonRow,
    PromptRow,
    Table,
    read_rows,
)
from dynalign_contract.result import StageResult
from dynalign_contract.settings import (
    OWN_TASKS,
    CapabilitySettings,
    EvaluationJudge,
    EvaluationSettings,
    JudgingSettings,
    Ratings,
    WinRateMethod,
    WinRateSettings,
)
from dynalign_trainer.evaluate.answers import sample_answers
from dynalign_trainer.evaluate.harness import measure
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pointwise import CandidateScore, PointwiseJudge
from dynalign_trainer.tasks.suites import Suite
from lab.tiny_qwen3 import write_tiny_qwen3
from support.judging_data import StageRun, held_out_prompts, metrics_of, rule_objective

pytestmark = pytest.mark.slow

PROMPTS = 4
OBJECTIVE = rule_objective()
BOTH = (EvaluationJudge.BASE, EvaluationJudge.LIVE)


class EvaluationRun:
    """A run with held-out prompts and two trained policies."""

    def __init__(self, root: Path, model: Path) -> None:
        root.mkdir()
        self.stages = StageRun.of(root, model)
        self.previous, self.policy = self.stages.adapter(seed=0), self.stages.adapter(seed=1)

    def config(self, method: WinRateMethod, *, policy: Policy, previous: Policy, prompts: int = PROMPTS) -> StageConfig:
        params = EvaluateParams(
            objective=OBJECTIVE,
            evaluation=EvaluationSettings(
                win_rate=WinRateSettings(method=method, judges=BOTH, resamples=200), ratings=Ratings.BRADLEY_TERRY
            ),
            judging=JudgingSettings(min_mass=0.0),
            policy=policy,
            previous=previous,
            max_tokens=24,
        )
        inputs = {"heldout": self.stages.held_out(held_out_prompts(OBJECTIVE, prompts))}
        return self.stages.config(params, inputs, [policy, previous])

    def rows(self, config: StageConfig) -> tuple[list[AnswerRow], list[ComparisonRow]]:
        folder = self.stages.root / config.folder
        return read_rows(folder / ANSWERS_FILE, ANSWER), read_rows(folder / COMPARISONS_FILE, COMPARISON)


@pytest.fixture
def run(tmp_path: Path) -> EvaluationRun:
    return EvaluationRun(tmp_path / "run", write_tiny_qwen3(tmp_path / "tiny", head_dim=32))


def check_metrics(result: StageResult) -> dict[str, float | None]:
    found = metrics_of(result)
    rate, low, high = (found[name] for name in ("win_rate", "win_rate_low", "win_rate_high"))
    assert rate is not None
    assert low is not None
    assert high is not None
    assert 0 <= low <= rate <= high <= 1
    assert found["regressed"] == float(high < 0.5)
    assert found["prompts"] == PROMPTS
    return found


def test_pairs_are_judged_in_both_orders_by_both_judges_against_base_and_predecessor(run: EvaluationRun) -> None:
    config = run.config(WinRateMethod.PAIRWISE, policy=run.policy, previous=run.previous)
    result = run.stages.execute(config)
    assert result.error is None
    found = check_metrics(result)
    answers, comparisons = run.rows(config)
    versions = ("base", run.previous.version, run.policy.version)
    assert [row["policy"] for row in answers] == [version for version in versions for _ in range(PROMPTS)]
    contests = [(judge, opponent) for judge in ("base", run.policy.version) for opponent in ("base", "previous")]
    assert [(row["judge"], row["opponent"]) for row in comparisons] == [c for c in contests for _ in range(PROMPTS)]
    assert all(0 < row["first"] < 1 and 0 < row["second"] < 1 for row in comparisons)
    headline = [row["outcome"] for row in comparisons if (row["judge"], row["opponent"]) == ("base", "base")]
    assert found["win_rate"] == pytest.approx(sum(headline) / PROMPTS)
    assert found["first_position"] is not None
    by_policy = {
        version: [row["reward"] for row in answers if row["policy"] == version]
        for version in ("base", run.policy.version)
    }
    means = {version: sum(rewards) / PROMPTS for version, rewards in by_policy.items()}
    assert all(0 <= reward <= 1 for rewards in by_policy.values() for reward in rewards)
    assert found["held_out_reward"] == pytest.approx(means[run.policy.version])
    assert found["held_out_reward_delta"] == pytest.approx(means[run.policy.version] - means["base"])
    ratings = read_rows(run.stages.root / config.folder / RATINGS_FILE, RATING)
    assert [(row["policy"], row["comparisons"]) for row in ratings] == [
        ("base", PROMPTS),
        (run.policy.version, 2 * PROMPTS),
        (run.previous.version, PROMPTS),
    ]
    assert found["rating"] == ratings[1]["points"]

    folder = run.stages.root / config.folder
    (folder / MANIFEST).unlink()
    (folder / ".config-digest").write_text(config.digest)
    (folder / COMPARISONS_FILE).unlink()
    kept = (folder / ANSWERS_FILE).stat().st_ino
    assert run.stages.execute(config).artifact == result.artifact
    assert (folder / ANSWERS_FILE).stat().st_ino == kept


def test_points_say_who_is_ahead(run: EvaluationRun) -> None:
    config = run.config(WinRateMethod.POINTWISE, policy=run.policy, previous=Policy())
    found = check_metrics(run.stages.execute(config))
    _, comparisons = run.rows(config)
    assert {row["opponent"] for row in comparisons} == {"base"}
    assert all(row["first"] == row["second"] for row in comparisons)
    assert all(row["outcome"] == (row["first"] > 0.5) + (row["first"] == 0.5) / 2 for row in comparisons)
    assert found["win_rate_previous"] == found["win_rate"]
    assert found["first_position"] is None


def test_a_policy_that_says_what_the_base_says_ties_without_asking(run: EvaluationRun) -> None:
    config = run.config(WinRateMethod.PAIRWISE, policy=Policy(), previous=Policy())
    found = check_metrics(run.stages.execute(config))
    assert (found["win_rate"], found["ties"], found["order_flips"]) == (0.5, 1.0, None)
    assert found["held_out_reward_delta"] == 0
    assert found["regressed"] == 0


def test_without_held_out_prompts_there_is_nothing_to_evaluate(run: EvaluationRun) -> None:
    config = run.config(WinRateMethod.PAIRWISE, policy=run.policy, previous=Policy(), prompts=0)
    result = run.stages.execute(config)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.error is not None
    assert "prompts.heldOut" in result.error.message


def test_answers_of_an_earlier_evaluation_are_not_sampled_again(
    run: EvaluationRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the base model and of the policy before; the same, to the last token, as if they had been."""
    first = run.config(WinRateMethod.POINTWISE, policy=run.previous, previous=Policy())
    earlier = run.stages.execute(first)
    assert earlier.artifact is not None
    alone = run.config(WinRateMethod.POINTWISE, policy=run.policy, previous=run.previous)
    alone = alone.model_copy(update={"iteration": 1})
    sampled: list[str] = []
    plain = sample_answers

    def sample(engine: Engine, prompts: Sequence[PromptRow], policy: Policy, **options: Any) -> list[AnswerRow]:
        sampled.append(policy.version)
        return plain(engine, prompts, policy, **options)

    monkeypatch.setattr("dynalign_trainer.evaluate.collecting.sample_answers", sample)
    check_metrics(run.stages.execute(alone))
    expected, versions = run.rows(alone), ["base", run.previous.version, run.policy.version]
    assert sampled == versions
    sampled.clear()
    later = alone.model_copy(update={"inputs": {**alone.inputs, "answers": earlier.artifact}})
    check_metrics(run.stages.execute(later))
    assert sampled == [run.policy.version]
    assert repr(run.rows(later)) == repr(expected), "NaN is unequal to itself, but not by its name"

    sampled.clear()
    longer = later.params.model_copy(update={"max_tokens": 25})
    run.stages.execute(later.model_copy(update={"params": longer}))
    assert sampled == versions, "answers of another length are others"


def test_the_base_model_scores_every_answer_once(run: EvaluationRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """One score serves the held-out reward and the win rates; those of earlier evaluations serve too."""
    asked: list[tuple[str, str, str]] = []
    plain = PointwiseJudge.score

    def score(
        self: PointwiseJudge, candidates: Sequence[Candidate], watch: Watch | None = None
    ) -> list[CandidateScore]:
        asked.extend((self.version, candidate.prompt_id, candidate.text) for candidate in candidates)
        return plain(self, candidates, watch)

    monkeypatch.setattr(PointwiseJudge, "score", score)
    first = run.config(WinRateMethod.POINTWISE, policy=run.previous, previous=Policy())
    earlier = run.stages.execute(first)
    assert earlier.artifact is not None
    asked.clear()
    config = run.config(WinRateMethod.POINTWISE, policy=run.policy, previous=run.previous)
    inputs = {**config.inputs, "answers": earlier.artifact}
    run.stages.execute(config.model_copy(update={"iteration": 1, "inputs": inputs}))
    answers, comparisons = run.rows(config.model_copy(update={"iteration": 1}))
    texts = {(row["policy"], row["prompt_id"]): row["text"] for row in answers}
    own = {(prompt, text) for (version, prompt), text in texts.items() if version == run.policy.version}
    known = {(prompt, text) for (version, prompt), text in texts.items() if version != run.policy.version}
    by_base = [(prompt, text) for version, prompt, text in asked if version == "base"]
    assert sorted(by_base) == sorted(own - known)
    rewards = {(row["policy"], row["prompt_id"]): row["raw_reward"] for row in answers}
    for row in comparisons:
        if (row["judge"], row["opponent"]) == ("base", "base"):
            pair = rewards[run.policy.version, row["prompt_id"]], rewards["base", row["prompt_id"]]
            assert row["first"] == pytest.approx(0.5 + (pair[0] - pair[1]) / 2, abs=1e-6)


def exam(config: StageConfig, shards: int) -> StageConfig:
    """The evaluation with tasks beside the prompts, split over shards."""
    assert isinstance(config.params, EvaluateParams)
    capability = CapabilitySettings(tasks=OWN_TASKS, limit=4, resamples=200)
    evaluation = config.params.evaluation.model_copy(update={"capability": capability})
    params = config.params.model_copy(update={"evaluation": evaluation})
    return config.model_copy(update={"params": params, "shards": shards})


@pytest.mark.parametrize("method", WinRateMethod)
def test_however_many_shards_there_are_the_evaluation_is_the_same(
    run: EvaluationRun, method: WinRateMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for last digits, which depend on what is computed together, where there are several threads.

    The pod that joins starts no engine for it, and one shard has no prompt at all.
    """
    config, starts = run.config(method, policy=run.policy, previous=run.previous), list[int]()

    def starts_engine(context: StageContext[Any], policies: Sequence[Policy]) -> Engine:
        starts.append(context.shard)
        return start_engine(context, policies)

    monkeypatch.setattr("dynalign_trainer.evaluate.collecting.start_engine", starts_engine)
    folder = run.stages.root / config.folder
    found = []
    for shards in (1, 3, PROMPTS + 1):
        starts.clear()
        sharded = exam(config, shards)
        *_, last = [run.stages.execute(sharded, shard) for shard in range(shards)]
        assert last.error is None
        assert starts == list(range(min(shards, PROMPTS)))
        manifest = read_listed(folder)
        numbers = {m.name: m.value for m in manifest.metrics if m.value is not None and not m.name.endswith("_seconds")}
        tables: dict[str, Table[Any]] = {
            ANSWERS_FILE: ANSWER,
            COMPARISONS_FILE: COMPARISON,
            CAPABILITY_FILE: CAPABILITY,
        }
        rows = {name: [*map(told, read_rows(folder / name, table))] for name, table in tables.items()}
        found.append((numbers, [file.name for file in manifest.files], rows))
        assert sorted(path.name for path in folder.parent.iterdir()) == ["evaluation"]
    for numbers, files, rows in found[1:]:
        assert numbers == pytest.approx(found[0][0], rel=1e-4, abs=1e-6)
        assert files == found[0][1]
        assert rows == found[0][2]


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its floats in four digits: scores of items that were computed with others differ beyond these."""
    return {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}


def test_a_later_evaluation_in_shards_takes_over_what_an_earlier_one_has(
    run: EvaluationRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers, rewards and scores of the base model, of which each shard finds its own."""
    first = run.stages.execute(exam(run.config(WinRateMethod.POINTWISE, policy=run.previous, previous=Policy()), 1))
    assert first.artifact is not None
    later = exam(run.config(WinRateMethod.POINTWISE, policy=run.policy, previous=run.previous), 2)
    inputs = {**later.inputs, "answers": first.artifact, "capability": first.artifact}
    sampled, measured = list[str](), list[str]()

    def sample(engine: Engine, prompts: Sequence[PromptRow], policy: Policy, **options: Any) -> list[AnswerRow]:
        sampled.append(policy.version)
        return sample_answers(engine, prompts, policy, **options)

    def measures(engine: Engine, suite: Suite, policy: Policy, watch: Watch | None, **options: Any) -> Any:
        measured.append(policy.version)
        return measure(engine, suite, policy, watch, **options)

    monkeypatch.setattr("dynalign_trainer.evaluate.collecting.sample_answers", sample)
    monkeypatch.setattr("dynalign_trainer.evaluate.harness.measure", measures)
    later = later.model_copy(update={"iteration": 1, "inputs": inputs})
    results = [run.stages.execute(later, shard) for shard in range(2)]
    assert results[-1].artifact is not None
    earlier, _ = run.rows(run.config(WinRateMethod.POINTWISE, policy=run.previous, previous=Policy()))
    answers, _ = run.rows(later)
    assert sampled == [run.policy.version] * 2
    by_base = [[row for row in rows if row["policy"] == "base"] for rows in (earlier, answers)]
    assert by_base[0] == by_base[1]
    paths = (first.artifact.path, results[-1].artifact.path)
    scores = [read_rows(run.stages.root / path / CAPABILITY_FILE, CAPABILITY) for path in paths]
    base = [[row for row in rows if row["policy"] == "base"] for rows in scores]
    assert base[0] == base[1]
    assert measured == [run.policy.version] * len(OWN_TASKS) * 2
