"""Three iterations of self-alignment raise what answers are really worth, not only what the model says of itself."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import pytest

from dynalign_contract.layout import ANSWERS_FILE, CANARIES_FILE, CAPABILITY_FILE, RATINGS_FILE, RunLayout
from dynalign_contract.metrics import STAGE_METRICS, read_metrics
from dynalign_contract.records import ANSWER, BATCH, CANARY, CAPABILITY, RATING, ROLLOUT, read_parts, read_rows
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import Phase
from lab.local_runs import SPEC, LocalRun, write_run
from lab.testbed import Testbed, load_testbed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return load_testbed()


@pytest.fixture(scope="module")
def run(testbed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    examined = {"capability": {"tasks": ["dynalign_choices"], "limit": 8}, "ratings": "BradleyTerry"}
    evaluation = {"evaluation": {**SPEC["evaluation"], **examined}}
    run = write_run(tmp_path_factory.mktemp("ground-truth"), testbed, evaluation)
    result = run.finish()
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{run.logs()}"
    return run


def worth(testbed: Testbed, texts: Iterable[str]) -> float:
    return fmean(testbed.rule(text) for text in texts)


def test_the_rule_says_that_answers_got_better(testbed: Testbed, run: LocalRun) -> None:
    layout = RunLayout(run.workdir)
    rollouts = [read_parts([layout.stage(Stage.GENERATE, i)], ROLLOUT) for i in range(3)]
    sampled = [worth(testbed, (row["text"] for row in rows)) for rows in rollouts]
    answers = read_rows(layout.stage(Stage.EVALUATE, 2) / ANSWERS_FILE, ANSWER)
    base = worth(testbed, (row["text"] for row in answers if row["policy"] == "base"))
    aligned = worth(testbed, (row["text"] for row in answers if row["policy"] == "iteration-002"))
    assert sampled[2] > sampled[0] + 0.5, (sampled, base, aligned)
    assert aligned > base + 0.3, (sampled, base, aligned)


def test_the_self_judged_reward_rose_with_it(run: LocalRun) -> None:
    rewards = [iteration.reward for iteration in run.status.iterations]
    assert rewards[0] is not None
    assert rewards[2] is not None
    assert rewards[2] > rewards[0]


def test_the_win_rate_comes_with_an_interval(run: LocalRun) -> None:
    last = run.status.iterations[-1]
    rate = last.win_rate
    assert rate is not None
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low <= rate.value <= rate.high
    assert rate.value > 0.5


def test_the_base_model_is_examined_once_and_compared_with_every_iteration(run: LocalRun) -> None:
    layout = RunLayout(run.workdir)
    rows = [read_rows(layout.stage(Stage.EVALUATE, i) / CAPABILITY_FILE, CAPABILITY) for i in range(3)]
    base = [[row for row in found if row["policy"] == "base"] for found in rows]
    assert len(base[0]) == 8
    assert base[0] == base[1] == base[2]
    for iteration, found in zip(run.status.iterations, rows, strict=True):
        own = fmean(row["score"] for row in found if row["policy"] != "base")
        assert iteration.capability is not None
        assert iteration.capability.value == pytest.approx(own)
        assert iteration.capability_delta is not None
        assert iteration.capability_delta.value == pytest.approx(own - fmean(row["score"] for row in base[0]))


def test_every_policy_is_rated_by_the_comparisons_of_all_evaluations(run: LocalRun) -> None:
    found = read_rows(RunLayout(run.workdir).stage(Stage.EVALUATE, 2) / RATINGS_FILE, RATING)
    points = {row["policy"]: row["points"] for row in found}
    assert list(points) == ["base", "iteration-000", "iteration-001", "iteration-002"]
    assert points["iteration-002"] > points["base"] == 0
    assert run.status.best is not None
    assert points[f"iteration-{run.status.best.iteration:03d}"] > 0


def test_the_summary_tells_the_start_up_of_every_stage(run: LocalRun) -> None:
    stages = [run.status.fetch, *(s for i in run.status.iterations for s in i.stages), run.status.export]
    for stage in stages:
        assert stage is not None
        values = read_metrics(stage.stage, stage.metrics)
        assert values[STAGE_METRICS[stage.stage].start_seconds] > 0


def test_canaries_are_recorded_and_worth_less_than_answers(run: LocalRun) -> None:
    for iteration in range(3):
        folder = RunLayout(run.workdir).stage(Stage.JUDGE, iteration)
        kinds = {row["kind"] for row in read_rows(folder / CANARIES_FILE, CANARY)}
        assert {"empty", "master_key", "shuffled", "truncated"} <= kinds


def test_every_row_of_a_batch_was_sampled_in_its_iteration(run: LocalRun) -> None:
    layout = RunLayout(run.workdir)
    for iteration in range(3):
        sampled = {
            (row["prompt_id"], row["candidate"]): row["completion_ids"]
            for row in read_parts([layout.stage(Stage.GENERATE, iteration)], ROLLOUT)
        }
        batch = read_rows(layout.batch(iteration) / "batch.parquet", BATCH)
        assert batch
        assert all(sampled[row["prompt_id"], row["candidate"]] == row["completion_ids"] for row in batch)


def test_the_exported_model_answers(run: LocalRun) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export = RunLayout(run.workdir).export
    tokenizer = AutoTokenizer.from_pretrained(export)
    model = AutoModelForCausalLM.from_pretrained(export)
    chat = [{"role": "user", "content": "Explain old rivers."}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    assert len(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).split()) > 3


def test_a_finished_run_is_left_as_it_is(run: LocalRun) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(run.workdir).rglob("*.parquet")}
    result = run.finish()
    assert result.returncode == 0
    assert run.status.phase is Phase.SUCCEEDED
    assert {path: path.stat().st_mtime_ns for path in Path(run.workdir).rglob("*.parquet")} == before
