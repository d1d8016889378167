"""Tasks of lm-evaluation-harness through the evaluate stage's engine: scores, what is kept, what is refused."""

from pathlib import Path

import pytest

from dynalign_contract.config import EvaluateParams, Policy, StageConfig
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.layout import CAPABILITY_FILE, COMPARISONS_FILE, MANIFEST
from dynalign_contract.records import CAPABILITY, CapabilityRow, read_rows, write_rows
from dynalign_contract.result import ArtifactRef
from dynalign_contract.settings import (
    CapabilitySettings,
    EvaluationJudge,
    EvaluationSettings,
    JudgingSettings,
    WinRateMethod,
    WinRateSettings,
)
from dynalign_contract.stages import Stage
from lab.tiny_qwen3 import write_tiny_qwen3
from support.judging_data import StageRun, held_out_prompts, metrics_of, rule_objective
from support.training_data import write_artifact

pytestmark = pytest.mark.slow

OBJECTIVE = rule_objective()
TASKS = ("dynalign_choices", "dynalign_instructions")
LIMIT = 3


class ExamRun:
    """A run with one held-out prompt, whose evaluation is about the tasks."""

    def __init__(self, root: Path, model: Path) -> None:
        root.mkdir()
        self.stages = StageRun.of(root, model)
        self.policy = self.stages.adapter(seed=1)
        self.held_out = self.stages.held_out(held_out_prompts(OBJECTIVE, 1))

    def config(
        self, tasks: tuple[str, ...] = TASKS, policy: Policy | None = None, earlier: ArtifactRef | None = None
    ) -> StageConfig:
        win_rate = WinRateSettings(method=WinRateMethod.POINTWISE, judges=(EvaluationJudge.BASE,), resamples=100)
        capability = CapabilitySettings(tasks=tasks, limit=LIMIT, resamples=200)
        params = EvaluateParams(
            objective=OBJECTIVE,
            evaluation=EvaluationSettings(win_rate=win_rate, capability=capability),
            judging=JudgingSettings(min_mass=0.0),
            policy=policy or self.policy,
            max_tokens=8,
        )
        kept = {} if earlier is None else {"capability": earlier}
        return self.stages.config(params, {"heldout": self.held_out, **kept}, [policy or self.policy])

    def rows(self, config: StageConfig) -> list[CapabilityRow]:
        return read_rows(self.stages.root / config.folder / CAPABILITY_FILE, CAPABILITY)

    def kept(self, rows: list[CapabilityRow]) -> ArtifactRef:
        write_rows(self.stages.root / "earlier" / CAPABILITY_FILE, rows, CAPABILITY)
        return write_artifact(self.stages.root, "earlier", Stage.EVALUATE)


@pytest.fixture
def run(tmp_path: Path) -> ExamRun:
    return ExamRun(tmp_path / "run", write_tiny_qwen3(tmp_path / "tiny", head_dim=32))


def test_policy_and_base_answer_the_same_items(run: ExamRun) -> None:
    config = run.config()
    result = run.stages.execute(config)
    assert result.error is None
    rows = run.rows(config)
    who = [(task, policy) for task in TASKS for policy in ("base", run.policy.version)]
    assert [(row["task"], row["policy"]) for row in rows] == [one for one in who for _ in range(LIMIT)]
    by_policy = {
        policy: [(r["item"], r["request"], r["metric"]) for r in rows if r["policy"] == policy]
        for policy in ("base", run.policy.version)
    }
    assert by_policy["base"] == by_policy[run.policy.version]
    assert {row["metric"] for row in rows} == {"acc", "kept"}
    found = metrics_of(result)
    means = [
        sum(r["score"] for r in rows if (r["task"], r["policy"]) == (t, run.policy.version)) / LIMIT for t in TASKS
    ]
    assert found["capability"] == pytest.approx(sum(means) / len(TASKS))
    assert found["task/dynalign_choices"] == pytest.approx(means[0])
    assert found["capability_items"] == len(TASKS) * LIMIT
    low, delta, high = (found[f"capability_delta{end}"] for end in ("_low", "", "_high"))
    assert low is not None
    assert delta is not None
    assert high is not None
    assert low <= delta <= high
    choice = next(row for row in rows if row["metric"] == "acc")
    scores = [float(number) for number in choice["response"].split(", ")]
    assert (scores.index(max(scores)) == 0) == (choice["score"] == 1)


def test_the_base_model_is_asked_once_a_run(run: ExamRun) -> None:
    """Its earlier rows are taken as they are, so one that could not come from the model shows where it came from."""
    config = run.config(("dynalign_choices",))
    run.stages.execute(config)
    rows = run.rows(config)
    base = [row for row in rows if row["policy"] == "base"]
    marked: list[CapabilityRow] = [{**row, "response": "earlier", "score": 1.0} for row in base]
    again = run.config(("dynalign_choices",), earlier=run.kept(marked))
    result = run.stages.execute(again)
    found = run.rows(again)
    assert [row["response"] for row in found if row["policy"] == "base"] == ["earlier"] * LIMIT
    mean = sum(row["score"] for row in found if row["policy"] != "base") / LIMIT
    assert metrics_of(result)["capability_delta"] == pytest.approx(mean - 1)

    other: list[CapabilityRow] = [{**row, "request": "something else"} for row in marked]
    changed = run.config(("dynalign_choices",), earlier=run.kept(other))
    run.stages.execute(changed)
    assert [row for row in run.rows(changed) if row["policy"] == "base"] == rows[:LIMIT]


def test_an_interrupted_attempt_keeps_what_it_has_written(run: ExamRun) -> None:
    config = run.config(("dynalign_choices",))
    first = run.stages.execute(config)
    folder = run.stages.root / config.folder
    marked: list[CapabilityRow] = [{**row, "response": "kept"} for row in run.rows(config)]
    write_rows(folder / CAPABILITY_FILE, marked, CAPABILITY)
    (folder / MANIFEST).unlink()
    (folder / COMPARISONS_FILE).unlink()
    (folder / ".config-digest").write_text(config.digest)
    assert metrics_of(run.stages.execute(config))["capability_delta"] == metrics_of(first)["capability_delta"]
    assert {row["response"] for row in run.rows(config)} == {"kept"}


def test_the_base_model_under_evaluation_has_lost_nothing(run: ExamRun) -> None:
    config = run.config(("dynalign_choices",), policy=Policy())
    found = metrics_of(run.stages.execute(config))
    assert (found["capability_delta"], found["capability_delta_low"], found["capability_regressed"]) == (0, 0, 0)
    assert [row["policy"] for row in run.rows(config)] == ["base"] * LIMIT


def test_a_task_that_nobody_has_is_bad_input(run: ExamRun) -> None:
    result = run.stages.execute(run.config(("dynalign_choises",)))
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.error is not None
    assert "evaluation.capability.tasks names dynalign_choises, which" in result.error.message
