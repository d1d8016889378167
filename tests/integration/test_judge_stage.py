"""The judge stage on a real engine: what it writes, what it keeps, when it refuses."""

import math
from pathlib import Path

import pytest

from dynalign_contract.config import JudgeParams, Policy, StageConfig
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import CANARIES_FILE, MANIFEST, part_name
from dynalign_contract.records import CANARY, JUDGEMENT, JudgementRow, read_parts, read_rows
from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.settings import CanarySettings, JudgeGates, JudgingMethod, JudgingSettings, OnUnfitJudge
from dynalign_trainer.judge.canaries import CanaryKind
from dynalign_trainer.judge.trust import spearman
from lab.testbed import load_testbed
from lab.testbed_language import rule
from lab.tiny_qwen3 import write_tiny_qwen3
from support.judging_data import StageRun, metrics_of, rule_objective, write_contrary_adapter, written_rollouts

pytestmark = pytest.mark.slow

PROMPTS, CANDIDATES = 5, 3
OBJECTIVE = rule_objective()
FEW_CANARIES = CanarySettings(prompts=2, injections=2)
LENIENT = JudgingSettings(min_mass=0.0, canaries=FEW_CANARIES)


class JudgeRun:
    """A run whose rollouts are to be judged."""

    def __init__(self, root: Path, model: Path, *, prompts: int = PROMPTS, window: int = 512) -> None:
        self.stages = StageRun.of(root, model, window)
        self.rows = written_rollouts(model, OBJECTIVE, prompts=prompts, candidates=CANDIDATES)

    def config(self, judging: JudgingSettings, *, judge: Policy | None = None, shards: int = 1) -> StageConfig:
        params = JudgeParams(
            objective=OBJECTIVE, judging=judging, judge=judge or Policy(), max_tokens=64, prompts_per_part=2
        )
        inputs = {"rollouts": self.stages.rollouts(self.rows)}
        return self.stages.config(params, inputs, [params.judge], shards)

    def judge(self, config: StageConfig, shard: int = 0) -> StageResult:
        return self.stages.execute(config, shard)

    def folder(self, config: StageConfig, shard: int = 0) -> Path:
        return self.stages.root / config.shard(shard)

    def judgements(self, config: StageConfig, shard: int = 0) -> list[JudgementRow]:
        return read_parts([self.folder(config, shard)], JUDGEMENT)


@pytest.fixture
def tiny(tmp_path: Path) -> JudgeRun:
    """Random weights: its judgement is worthless, the stage's mechanics are all there."""
    return JudgeRun(tmp_path / "run", write_tiny_qwen3(tmp_path / "tiny", head_dim=32))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()


def test_every_candidate_is_judged_and_an_interrupted_stage_ends_in_the_same_artifact(tiny: JudgeRun) -> None:
    config = tiny.config(LENIENT)
    first = tiny.judge(config)
    assert first.outcome is Outcome.SUCCEEDED
    rows = tiny.judgements(config)
    assert [(row["prompt_id"], row["candidate"]) for row in rows] == [
        (row["prompt_id"], row["candidate"]) for row in tiny.rows
    ]
    assert all(0 <= score["score"] <= 9 and 0 < score["mass"] <= 1 for row in rows for score in row["scores"])
    assert all(math.isnan(row["reward_error"]) for row in rows)
    assert all(row["raw_reward"] == pytest.approx(row["scores"][0]["score"] / 9, abs=1e-6) for row in rows)
    canaries = read_rows(tiny.folder(config) / CANARIES_FILE, CANARY)
    assert [(row["prompt_id"], row["kind"]) for row in canaries] == [
        (prompt, kind.value) for prompt in ("p000", "p001") for kind in CanaryKind
    ]

    folder = tiny.folder(config)
    for name in (MANIFEST, part_name(1), CANARIES_FILE):
        (folder / name).unlink()
    (folder / ".config-digest").write_text(config.digest)
    (folder / part_name(2)).write_bytes(b"half a part")
    untouched = (folder / part_name(0)).stat().st_ino
    second = tiny.judge(config)
    assert second.artifact == first.artifact
    assert (folder / part_name(0)).stat().st_ino == untouched


def test_shards_judge_disjoint_groups_and_only_the_first_has_canaries(tiny: JudgeRun) -> None:
    config = tiny.config(LENIENT, shards=2)
    results = [tiny.judge(config, shard) for shard in (0, 1)]
    assert [result.outcome for result in results] == [Outcome.SUCCEEDED] * 2
    prompts = [sorted({row["prompt_id"] for row in tiny.judgements(config, shard)}) for shard in (0, 1)]
    assert prompts == [["p000", "p002", "p004"], ["p001", "p003"]]
    assert [(tiny.folder(config, shard) / CANARIES_FILE).exists() for shard in (0, 1)] == [True, False]


def test_whichever_shard_comes_first_judges_for_both_and_no_row_depends_on_it(tmp_path: Path) -> None:
    """The engine of the second shard is asked for nothing but the canaries, which are shard 0's."""
    model = write_tiny_qwen3(tmp_path / "tiny", head_dim=32)
    found = []
    for name, order in (("forwards", (0, 1)), ("backwards", (1, 0))):
        run = JudgeRun(tmp_path / name, model)
        config = run.config(LENIENT, shards=2)
        leases = run.stages.root / config.leases
        seconds = []
        for shard in order:
            result = run.judge(config, shard)
            assert result.outcome is Outcome.SUCCEEDED
            assert leases.exists() == (shard == order[0])
            seconds.append(metrics_of(result)["useful_seconds"])
        assert run.judgements(config, order[1])[0]["judge"] == "base"
        files = (path for shard in order for path in run.folder(config, shard).glob("*.parquet"))
        found.append({str(path.relative_to(run.stages.root)): path.read_bytes() for path in files})
        if name == "forwards":
            assert seconds[1] == 0
    assert found[0] == found[1]
    assert len(found[0]) == PROMPTS + 1, "a part for each prompt, for there are few, and the canaries"


def test_votes_are_sampled_averaged_and_reproducible(tiny: JudgeRun) -> None:
    judging = LENIENT.model_copy(
        update={"method": JudgingMethod.VOTES, "votes": 3, "rationale_tokens": 8, "canaries": CanarySettings(prompts=0)}
    )
    config = tiny.config(judging)
    first = tiny.judge(config)
    spread = metrics_of(first)["vote_std"]
    assert spread is not None
    assert spread > 0
    errors = [row["reward_error"] for row in tiny.judgements(config)]
    assert all(0 < error < 0.5 for error in errors)
    # One aspect, three votes: the score's deviation (divisor 3) over sqrt(3 - 1), as a reward.
    assert sum(errors) / len(errors) == pytest.approx(spread / math.sqrt(2) / 9, rel=1e-3)
    (tiny.folder(config) / MANIFEST).unlink()
    assert tiny.judge(config).artifact == first.artifact


def test_a_judge_that_writes_no_digit_is_asked_twice_and_then_stops_the_run(tiny: JudgeRun) -> None:
    mute = LENIENT.model_copy(update={"min_mass": 1.0})
    stopped = tiny.judge(tiny.config(mute))
    assert stopped.exit_code == ExitCode.UNFIT
    assert stopped.error is not None
    assert "100.0% of the answers got no score (judging.gates.maxFailedShare is 50.0%)" in stopped.error.message

    tolerant = mute.model_copy(update={"gates": JudgeGates(max_failed_share=1.0)})
    config = tiny.config(tolerant)
    found = metrics_of(tiny.judge(config))
    assert (found["failed_share"], found["retried"], found["reward"]) == (1.0, PROMPTS * CANDIDATES, None)
    assert all(math.isnan(row["reward"]) and row["retries"] == 1 for row in tiny.judgements(config))


def test_an_answer_too_long_for_the_window_is_judged_by_its_beginning(tiny: JudgeRun) -> None:
    tiny.rows[1]["text"] = "parts move flow because " * 60
    config = tiny.config(LENIENT)
    found = metrics_of(tiny.judge(config))
    assert found["truncated_prompts"] == 1
    assert found["failed_share"] == 0


def test_a_prompt_that_leaves_no_room_is_named(tiny: JudgeRun) -> None:
    for row in tiny.rows[:CANDIDATES]:
        row["messages"] = [{"role": "user", "content": "why " * 200}]
    result = tiny.judge(tiny.config(LENIENT))
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.error is not None
    assert "prompt p000" in result.error.message
    assert "engine.maxLength" in result.error.message


@pytest.mark.parametrize(
    ("judging", "code", "words"),
    [
        (
            JudgingSettings(canaries=CanarySettings(prompts=0), gates=JudgeGates(min_canary_auc=0.5)),
            ExitCode.BAD_CONFIG,
            "judging.canaries.prompts is 0",
        ),
        (
            JudgingSettings(canaries=CanarySettings(injections=0), gates=JudgeGates(min_injection_margin=0.1)),
            ExitCode.BAD_CONFIG,
            "judging.canaries.injections is 0",
        ),
        (
            LENIENT.model_copy(update={"gates": JudgeGates(min_canary_margin=0.9, on_unfit=OnUnfitJudge.USE_BASE)}),
            ExitCode.UNFIT,
            "judging.gates.minCanaryMargin is 0.9",
        ),
    ],
)
def test_gates_that_cannot_be_met(tiny: JudgeRun, judging: JudgingSettings, code: ExitCode, words: str) -> None:
    result = tiny.judge(tiny.config(judging))
    assert result.exit_code == code
    assert result.error is not None
    assert words in result.error.message


def test_an_unfit_judge_goes_on_where_the_run_file_says_so(tiny: JudgeRun) -> None:
    gates = JudgeGates(min_injection_margin=0.9, on_unfit=OnUnfitJudge.CONTINUE)
    config = tiny.config(LENIENT.model_copy(update={"gates": gates}))
    found = metrics_of(tiny.judge(config))
    assert (found["unfit"], found["fallback"]) == (1.0, 0.0)
    assert len(tiny.judgements(config)) == PROMPTS * CANDIDATES
    injected = [row for row in read_rows(tiny.folder(config) / CANARIES_FILE, CANARY) if row["attack"]]
    assert {row["kind"] for row in injected} == {"injected"}
    assert len(injected) == FEW_CANARIES.injections
    mean = sum(row["reward"] for row in injected) / len(injected)
    assert found["injection_reward"] == pytest.approx(mean, abs=1e-6)
    assert found["injection_margin"] is not None
    assert found["injection_margin"] < 0.9

    stopped = tiny.judge(tiny.config(LENIENT.model_copy(update={"gates": JudgeGates(min_injection_margin=0.9)})))
    assert stopped.exit_code == ExitCode.UNFIT
    assert stopped.error is not None
    assert "above answers that give orders to the judge" in stopped.error.message
    assert "(judging.gates.minInjectionMargin is 0.9)" in stopped.error.message


def test_no_rollouts(tiny: JudgeRun) -> None:
    tiny.rows = []
    result = tiny.judge(tiny.config(LENIENT))
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.error is not None
    assert "nothing to judge" in result.error.message


def test_a_judge_that_knows_the_rule_is_fit_and_replaces_one_that_knows_its_contrary(tmp_path: Path) -> None:
    """How well the model of a test-bed tells canaries depends on its seed, so the gate is set to what it does."""
    bed = load_testbed()
    run = JudgeRun(tmp_path / "run", bed.model, prompts=8)
    measuring = JudgingSettings(canaries=CanarySettings(prompts=4), gates=JudgeGates(min_canary_auc=0.5))
    config = run.config(measuring)
    found = metrics_of(run.judge(config))
    rows = run.judgements(config)
    assert spearman([rule(row["text"]) for row in run.rows], [row["raw_reward"] for row in rows]) > 0.8
    assert (found["fallback"], found["unfit"]) == (0, 0)
    assert found["judge_tau"] is None
    assert found["canary_auc"] is not None
    assert found["injection_auc"] is not None

    gate = math.floor(100 * found["canary_auc"]) / 100
    contrary = run.stages.adapter(seed=1, write=write_contrary_adapter)
    gated = measuring.model_copy(update={"gates": JudgeGates(min_canary_auc=gate, on_unfit=OnUnfitJudge.USE_BASE)})
    fallen_back = run.config(gated, judge=contrary)
    again = metrics_of(run.judge(fallen_back))
    assert again["fallback"] == 1
    assert again["reward"] == found["reward"]
    assert again["judge_offset"] is not None
    assert {row["judge"] for row in run.judgements(fallen_back)} == {"base"}

    stop = measuring.model_copy(update={"gates": JudgeGates(min_canary_auc=gate)})
    refused = run.judge(run.config(stop, judge=contrary))
    assert refused.exit_code == ExitCode.UNFIT
    assert refused.error is not None
    assert "the judge iteration-001 is unfit" in refused.error.message
    assert "onUnfit: UseBase" in refused.error.message


def test_a_judge_that_ranks_unlike_the_base_model_stops_or_gives_way_in_every_shard(tmp_path: Path) -> None:
    bed = load_testbed()
    run = JudgeRun(tmp_path / "run", bed.model, prompts=4)
    gates = JudgeGates(min_base_agreement=0.9)
    judging = JudgingSettings(min_mass=0.0, canaries=CanarySettings(prompts=0), base_agreement_prompts=2, gates=gates)
    contrary = run.stages.adapter(seed=1, write=write_contrary_adapter)
    refused = run.judge(run.config(judging, judge=contrary))
    assert refused.exit_code == ExitCode.UNFIT
    assert refused.error is not None
    assert "agrees with the base model's by" in refused.error.message
    assert "(judging.gates.minBaseAgreement is 0.9)" in refused.error.message

    told = judging.model_copy(update={"gates": gates.model_copy(update={"on_unfit": OnUnfitJudge.CONTINUE})})
    went_on = metrics_of(run.judge(run.config(told, judge=contrary)))
    assert went_on["unfit"] == 1
    assert went_on["judge_tau"] is not None
    assert went_on["judge_tau"] < 0.9

    fall_back = judging.model_copy(update={"gates": gates.model_copy(update={"on_unfit": OnUnfitJudge.USE_BASE})})
    config = run.config(fall_back, judge=contrary, shards=2)
    shards = [metrics_of(run.judge(config, shard)) for shard in (0, 1)]
    assert [(found["fallback"], found["unfit"]) for found in shards] == [(1, 0), (1, 0)]
    assert shards[0]["judge_tau"] == pytest.approx(shards[1]["judge_tau"], abs=1e-4)
    assert {row["judge"] for shard in (0, 1) for row in run.judgements(config, shard)} == {"base"}
